// Every request to the server: JSON, binary arrays, addresses of media; errors that say what to do next; a small cache.
import { signal } from "../vendor/handloom-vendor.js";
import { withQuery } from "./router.js";

/** A request that failed: `problem` and `hint` are texts for the reader, `status` is HTTP's (0: no answer). */
export class ApiError extends Error {
  constructor(problem, hint = "", status = 0) {
    super(problem);
    this.problem = problem;
    this.hint = hint;
    this.status = status;
  }
}

/** What `/api/about` said last, or null before the first answer. */
export const about = signal(null);

/** Why the server answers nothing now: an ApiError of status 0 (it is away) or 401 (it wants another token); null: it answers. */
export const trouble = signal(null);

const KEPT = 200;
const MOST_UPLOAD = 200 * 2 ** 20;
const kept = new Map(); // address with `v` -> answer: such an answer never changes

/** JSON of GET `path` with `params` (lists are repeated). Throws ApiError; an aborted request throws AbortError. */
export async function get(path, params = {}, { signal: abort } = {}) {
  const address = withQuery(path, params);
  if (kept.has(address)) return kept.get(address);
  const answer = await whole(await ask(address, { signal: abort }), (response) => response.json());
  if (params.v) {
    kept.set(address, answer);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return answer;
}

/** JSON of POST `path` with a JSON body. */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return whole(await ask(path, { method: "POST", headers, body: JSON.stringify(body) }), (response) => response.json());
}

/**
 * Send one file (a video or an image) to be searched with; gives `{query, kind, name, took_ms}`. `progress(share)` is
 * called while it goes. By XMLHttpRequest, as `fetch` does not tell how much is sent.
 */
export async function upload(file, { signal: abort, progress = () => {} } = {}) {
  if (file.size > MOST_UPLOAD) throw new ApiError(`${file.name || "the file"} has ${Math.ceil(file.size / 2 ** 20)} MB`, `at most ${MOST_UPLOAD / 2 ** 20} MB are taken: cut the video, or make it smaller`, 413);
  const body = new FormData();
  body.append("file", file, file.name || "pasted");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onload = () => (request.status < 300 ? resolve(request.response) : reject(refusal(request, request.response)));
    request.onerror = () => reject((trouble.value = noAnswer()));
    request.onabort = () => reject(new DOMException("the upload was stopped", "AbortError"));
    abort?.addEventListener("abort", () => request.abort());
    request.open("POST", "/api/upload");
    request.send(body);
  });
}

/**
 * Bytes of GET `path`: an ArrayBuffer. `progress(share)` is called while they come, where the length is known.
 * Of an answer that says it is longer than `limit`, nothing is read, and null comes back.
 */
export async function bytes(path, params = {}, { signal: abort, progress, limit = Infinity } = {}) {
  const response = await ask(withQuery(path, params), { signal: abort });
  const length = Number(response.headers.get("Content-Length"));
  if (length > limit) {
    await response.body.cancel();
    return null;
  }
  return whole(response, () => (!progress || !length || response.headers.get("Content-Encoding") ? response.arrayBuffer() : inParts(response, length, progress)));
}

async function inParts(response, length, progress) {
  const result = new Uint8Array(length);
  const reader = response.body.getReader();
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return result.buffer.slice(0, at);
    if (at + value.length > length) throw new ApiError(`${response.url}: more bytes came than were announced`, "load it again");
    result.set(value, at);
    at += value.length;
    progress(at / length);
  }
}

/** Arrays of one clip by name: `{name: {dtype, shape, data}}`; see `readArrays`. Null: longer than `limit`. */
export async function arrays(id, names, options = {}) {
  const buffer = await bytes("/api/arrays", { id, names: names.join(","), v: options.v }, options);
  return buffer && readArrays(buffer);
}

const KINDS = { F32: Float32Array, F64: Float64Array, I32: Int32Array, I64: BigInt64Array, U8: Uint8Array, BOOL: Uint8Array };

/** Read the safetensors layout: `{name: {dtype, shape, data}}`, `data` a typed array of all values in C order. */
export function readArrays(buffer) {
  if (buffer.byteLength < 8) throw new ApiError("the arrays came without a header", "load the page again");
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (8 + length > buffer.byteLength) throw new ApiError("the arrays were cut short", "load the page again");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const result = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const kind = KINDS[dtype];
    if (!kind) throw new ApiError(`array ${name}: kind ${dtype} is not known here`, "load the page again");
    const from = 8 + length + start;
    if (8 + length + end > buffer.byteLength) throw new ApiError(`array ${name} was cut short`, "load the page again");
    const step = kind.BYTES_PER_ELEMENT;
    const data = from % step ? new kind(buffer.slice(from, 8 + length + end)) : new kind(buffer, from, (end - start) / step);
    result[name] = { dtype, shape, data };
  }
  return result;
}

/** Address of a medium of a clip: kind `thumb`, `strip`, `frame`, `frames`, `video`. The version makes it lasting. */
export const media = (kind, id, params = {}) => withQuery(`/media/${kind}`, { id, ...params, v: about.value?.version });

/** Ask the server what it holds, and keep it in `about`. */
export async function loadAbout() {
  about.value = await get("/api/about");
  return about.value;
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    trouble.value = noAnswer();
    throw trouble.value;
  }
  if (response.ok) {
    trouble.value = null;
    return response;
  }
  const error = refusal(response, await response.json().catch(() => null));
  trouble.value = response.status === 401 ? error : null;
  throw error;
}

/** What `read(response)` gives. The server may end before all of an answer has come. */
async function whole(response, read) {
  try {
    return await read(response);
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    if (error instanceof SyntaxError) throw new ApiError("the answer cannot be read", "load again; what stands between this page and the server may change answers", 502);
    trouble.value = noAnswer();
    throw trouble.value;
  }
}

const noAnswer = () => new ApiError("the server does not answer", "look whether `handloom serve` still runs, then load again");

/** What the server said in place of an answer. */
function refusal({ status, statusText }, body) {
  const said = body?.error;
  return new ApiError(said?.problem ?? `the server answered ${status} ${statusText}`, said?.hint ?? "", status);
}

// Judging a clip: good or bad, why, a note; by buttons and keys. Every view of a clip sees the change at once.
import { html, signal, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { about, get, post, trouble } from "./api.js";
import { useKeys } from "./keys.js";
import { Problem } from "./states.js";

/** Judgements made or asked for on this page since it was loaded: `{clip id: judgement or null}`; newer than what lists hold. */
export const judged = signal({});

/** Reasons that are offered; any other may be typed. */
export const REASONS = {
  good: ["clean", "typical", "rare"],
  bad: ["hands wrong", "hands missing", "left and right swapped", "tracks wrong", "scale wrong", "camera path wrong", "segments wrong", "words wrong", "blurred", "nothing happens", "private"],
};
const MOST_REASON = 200;
const MOST_NOTE = 10000;
const WHO = "handloom.who";
const DRAFT = "handloom.draft:"; // what is typed and not saved, by clip, until the window is closed
let lists = 0; // two clips beside each other have two lists of reasons

/** The judgement of a clip as far as this page knows: the one made here, or `known`, which came with the clip. */
export const judgementOf = (id, known) => (id in judged.value ? judged.value[id] : known);

/** Good, bad or null of a hit of a list, which has `flag`. */
export const flagOf = (hit) => (hit.clip_id in judged.value ? (judged.value[hit.clip_id]?.verdict ?? null) : hit.flag === "none" ? null : hit.flag);

/**
 * Write a judgement; `verdict` null takes it back. Of texts that are undefined the clip keeps what it has. `before`: the time of the
 * judgement that was seen, null: none, undefined: unknown. Throws ApiError, of status 409 where the clip has another one by now.
 */
export async function writeJudgement(id, verdict, { reason, note, before, version = about.value?.version } = {}) {
  const { judgement } = await post("/api/judge", { clip_id: id, verdict, reason, note, who: whoJudges(), version, before });
  judged.value = { ...judged.value, [id]: judgement };
  return judgement;
}

/**
 * One verdict for many clips, in parts that the server takes; notes that they have stay, and without `reason` reasons
 * for the same verdict. Gives how many.
 */
export async function judgeAll(ids, verdict, { reason } = {}) {
  let num = 0;
  for (let start = 0; start < ids.length; start += 2000) {
    const part = ids.slice(start, start + 2000);
    num += (await post("/api/judge", { clip_ids: part, verdict, reason, who: whoJudges(), version: about.value?.version })).num;
    judged.value = { ...judged.value, ...Object.fromEntries(part.map((id) => [id, verdict === null ? null : { clip_id: id, verdict, reason }])) };
  }
  return num;
}

/**
 * Buttons, reason and note of one clip. `version`: of `clips`, that is looked at. With `keys` false the keys are left to
 * others (two clips beside each other). The judgement is asked for here: a clip's other facts never change, it does.
 */
export function Judge({ id, version, keys = true }) {
  const [known, setKnown] = useState(undefined);
  const now = judgementOf(id, known);
  const [reason, setReason] = useState(draftOf(id)?.reason ?? now?.reason ?? "");
  const [note, setNote] = useState(draftOf(id)?.note ?? now?.note ?? "");
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState(null);
  const reasonBox = useRef(null);
  const list = useMemo(() => `judge-reasons-${(lists += 1)}`, []);
  const may = Boolean(about.value?.judging);
  const away = Boolean(trouble.value);
  const [asked, ask] = useState(0);
  const of = useRef(null); // the clip whose judgement was asked for
  useEffect(() => {
    const again = () => document.visibilityState === "visible" && ask((n) => n + 1); // another window may have judged it
    window.addEventListener("focus", again);
    return () => window.removeEventListener("focus", again);
  }, []);
  useEffect(() => {
    if (away) return undefined; // it is asked for once the server is back
    const abort = new AbortController();
    if (of.current !== id) setKnown(undefined);
    of.current = id;
    const before = judged.peek()[id];
    get("/api/judgements", { id }, { signal: abort.signal }).then(
      ({ judgement }) => {
        setKnown(judgement);
        if (judged.peek()[id] === before) judged.value = { ...judged.peek(), [id]: judgement };
      },
      (error) => error.name !== "AbortError" && setFailed(error),
    );
    return () => abort.abort();
  }, [id, away, asked]);
  useEffect(() => {
    setReason(draftOf(id)?.reason ?? now?.reason ?? "");
    setNote(draftOf(id)?.note ?? now?.note ?? "");
  }, [id, now?.at]);
  useEffect(() => setFailed(null), [id]);
  const set = async (verdict, texts = { reason, note }) => {
    if (busy) return;
    setBusy(true);
    setFailed(null);
    try {
      await writeJudgement(id, verdict, { ...texts, version, before: now && now.at });
      keepDraft(id, null);
    } catch (error) {
      setFailed(error);
      if (error.status === 409) ask((n) => n + 1); // what it is now is shown, what was typed stays
    } finally {
      setBusy(false);
    }
  };
  const typed = (texts) => {
    setReason(texts.reason);
    setNote(texts.note);
    keepDraft(id, texts);
  };
  // A reason that was given for another verdict does not go with this one. Before the judgement is known, its texts stay.
  const turn = (verdict) => set(verdict, now === undefined ? { reason: reason || undefined, note: note || undefined } : now && now.verdict !== verdict && reason === (now.reason ?? "") ? { reason: "", note } : { reason, note });
  const changed = now && (reason.trim() !== (now.reason ?? "") || note.trim() !== (now.note ?? ""));
  // What was typed is not lost: another page of the gallery has it written, one beyond it finds it as a draft.
  const unsaved = useRef(null);
  unsaved.current = may && changed && !busy ? { id, write: () => set(now.verdict) } : null;
  useEffect(() => () => {
    if (unsaved.current?.id === id) void unsaved.current.write();
  }, [id]);
  useKeys("Judge", may && keys
    ? [
        { keys: ["y"], about: "good", run: () => void turn("good") },
        { keys: ["n"], about: "bad", run: () => void turn("bad") },
        { keys: ["u"], about: "take the judgement back", run: () => (now ? void set(null) : false) },
        { keys: ["w"], about: "why: to the reason", run: () => reasonBox.current?.focus() },
        { keys: ["Ctrl+Enter"], about: "save why and note", typing: true, run: (event) => (event.target.form === reasonBox.current?.form ? event.target.form.requestSubmit() : false) },
      ]
    : []);
  if (!may) return html`<section class="judge" aria-label="Judgement"><${Told} judgement=${now} /> ${now === null && html`<p class="soft">Not judged. Judge with <code>handloom serve --judge</code>.</p>`}</section>`;
  const save = (event) => {
    event.preventDefault();
    if (changed) set(now.verdict);
  };
  return html`
    <section class="judge" aria-label="Judgement">
      <div class="judge-line">
        <span class="switch" role="group" aria-label="Verdict">
          <button type="button" class="button judge-good" aria-pressed=${now?.verdict === "good"} disabled=${busy} title="Good (y)" onClick=${() => turn("good")}>✓ Good</button>
          <button type="button" class="button judge-bad" aria-pressed=${now?.verdict === "bad"} disabled=${busy} title="Bad (n)" onClick=${() => turn("bad")}>✗ Bad</button>
        </span>
        ${now && html`<button type="button" class="button quiet" disabled=${busy} title="Take it back (u)" onClick=${() => set(null)}>Take back</button>`}
        ${busy && html`<span class="spinner" role="status" aria-label="Writing"></span>`}
      </div>
      <form class="judge-texts" onSubmit=${save}>
        <label>Why <input ref=${reasonBox} type="text" maxlength=${MOST_REASON} list=${list} value=${reason} placeholder="a word or two" onInput=${(event) => typed({ reason: event.target.value, note })} /></label>
        <datalist id=${list}>${(REASONS[now?.verdict] ?? [...REASONS.bad, ...REASONS.good]).map((one) => html`<option key=${one} value=${one}></option>`)}</datalist>
        <label>Note <textarea maxlength=${MOST_NOTE} rows="2" value=${note} onInput=${(event) => typed({ reason, note: event.target.value })}></textarea></label>
        <${Who} />
        ${changed && html`<button type="submit" class="button main" disabled=${busy}>Save why and note</button>`}
        ${!now && (reason || note) && html`<p class="soft">Choose good or bad to keep this.</p>`}
      </form>
      ${failed && html`<${Problem} error=${failed} />`}
      <${Told} judgement=${now} />
    </section>
  `;
}

/** What was typed for a clip and not saved: {reason, note}; null: nothing. */
function draftOf(id) {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT + id));
  } catch {
    return null; // storage may be forbidden
  }
}

function keepDraft(id, texts) {
  try {
    if (texts) sessionStorage.setItem(DRAFT + id, JSON.stringify(texts));
    else sessionStorage.removeItem(DRAFT + id);
  } catch {
    // Forbidden or full: the page holds it as long as it is open.
  }
}

/** Who made a judgement and when, as a line; what was said where it cannot be changed. */
function Told({ judgement }) {
  if (!judgement) return null;
  const { verdict, reason, note, who, at, clips_version: version } = judgement;
  return html`
    <p class="soft judge-told" role="status">
      Judged <b class=${verdict}>${verdict}</b>${who && ` by ${who}`}${at && `, ${new Date(at).toLocaleString()}`}${version !== null && version !== undefined && `, on version ${version}`}
      ${!about.value?.judging && reason && html`<br />${reason}`}${!about.value?.judging && note && html`<br /><span class="judge-note">${note}</span>`}
    </p>
  `;
}

function Who() {
  const [name, setName] = useState(whoJudges);
  const change = (event) => {
    setName(event.target.value);
    try {
      localStorage.setItem(WHO, event.target.value.trim());
    } catch {
      // Storage may be forbidden: the server's own name for the person is taken.
    }
  };
  return html`<label>Your name <input type="text" maxlength="200" autocomplete="name" value=${name} placeholder="your user name" onInput=${change} /></label>`;
}

function whoJudges() {
  try {
    return localStorage.getItem(WHO) ?? "";
  } catch {
    return "";
  }
}

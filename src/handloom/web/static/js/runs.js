// Runs: how far those are that work now, or that stopped without an end; what earlier ones did. Indexes.
import { html } from "../vendor/handloom-vendor.js";
import { about } from "./api.js";
import { count, duration, short } from "./states.js";

export const percent = (share) => (share > 0 && share < 0.01 ? "< 1 %" : share > 0.99 && share < 1 ? "> 99 %" : `${Math.round(100 * share)} %`);
export const shareOf = (number, all) => (all ? percent(number / all) : "–");

const time = (text) => new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** The newest run, where it ended without a word: killed, asleep, or its machine is lost. */
export function stoppedRun({ runs }) {
  const [run] = runs;
  return run && run.of_stages && (run.state === "gone" || run.state === "silent") ? run : null;
}

/** The runs that work now; or the newest one where it has stopped. */
export function Running({ found }) {
  const going = found.runs.filter((run) => run.running);
  const stopped = stoppedRun(found);
  return html`
    ${going.map((run) => html`<${Going} key=${run.run_id} run=${run} counts=${found.counts} />`)}
    ${stopped && html`<${Stopped} key=${stopped.run_id} run=${stopped} counts=${found.counts} />`}
  `;
}

const hostOf = (run) => (run.holder ? ` on ${run.holder.host}` : "");
const doneOf = ({ rows, rejects }) => rows + rejects;

function Going({ run, counts }) {
  const { progress } = run;
  if (!run.of_stages) {
    return html`<section class="running" role="status"><p><span class="spinner" aria-hidden="true"></span> <span><code>${run.run_key}</code>${hostOf(run)} works on the database since ${time(run.started_at)}: no run may begin meanwhile.</span></p></section>`;
  }
  return html`
    <section class="running" role="status" aria-label=${`Run ${run.run_id}`}>
      <p class="running-line">
        <span class="spinner" aria-hidden="true"></span>
        <span>Run <code>${run.run_id}</code>${hostOf(run)} since ${time(run.started_at)}${progress ? "" : `: ${counts.pending ? `${count(counts.pending, "clip")} pending` : "every clip is done; columns are brought up to date"}`}</span>
        ${progress && html`
          <progress max=${progress.total} value=${doneOf(progress)} aria-label="Clips that are done"></progress>
          <b class="num">${shareOf(doneOf(progress), progress.total)}</b>`}
      </p>
      ${progress && html`<p class="running-facts num">${factsOf(progress).map((fact) => html`<span key=${fact}>${fact}</span>`)}<span class="soft">as of ${Math.round(run.silent_s)} s ago</span></p>`}
    </section>
  `;
}

/** What a run says of itself: `12 of 40 clips done, 1 rejected`, rates of the last minute, time left, stages at work. */
export function factsOf(progress) {
  const { total, units, rejects, clips_per_s: clips, frames_per_s: frames, left_s: left, at_work } = progress;
  const done = doneOf(progress);
  const facts = [`${done.toLocaleString("en")} of ${count(total, units.replace(/s$/, ""))} done${rejects ? `, ${rejects.toLocaleString("en")} rejected` : ""}`];
  if (clips !== null) facts.push(`${clips > 0 && clips < 1 ? `${short(60 * clips)} ${units} a minute` : `${short(clips)} ${units}/s`}${progress.frames ? `, ${short(frames)} frames/s` : ""} over the last minute`);
  if (left !== null && done < total) facts.push(`about ${left < 60 ? `${Math.round(left)} s` : duration(left)} left`);
  if (at_work) facts.push(`at work: ${at_work}`);
  else if (!done) facts.push("workers start and load their models");
  else if (done >= total) facts.push("the last rows are committed");
  return facts;
}

function Stopped({ run, counts }) {
  const { progress } = run;
  const lost = run.state === "gone" ? "stopped without an end" : "may have stopped: it is on another machine, or sleeps";
  const left = counts.pending ? `${count(counts.pending, "clip")} pending` : "every clip is done, columns may be missing";
  return html`
    <section class="running stopped" role="status" aria-label=${`Run ${run.run_id}`}>
      <p class="running-line">
        <span>Run <code>${run.run_id}</code>${hostOf(run)} ${lost}: no sign for ${run.silent_s < 60 ? `${Math.round(run.silent_s)} s` : duration(run.silent_s)}.${progress ? ` ${doneOf(progress).toLocaleString("en")} of ${count(progress.total, progress.units.replace(/s$/, ""))} were done; ` : " "}${left}.</span>
      </p>
      <p class="running-facts"><span><code>handloom run --db ${about.value?.uri ?? "DB"}</code> goes on with what is left.</span></p>
    </section>
  `;
}

export function Runs({ runs }) {
  if (!runs.length) return html`<p class="soft">No run yet.</p>`;
  return html`
    <div class="wide" tabindex="0" role="region" aria-label="Runs"><table>
      <caption class="hidden-text">Runs, the last one first</caption>
      <thead><tr><th scope="col">Run</th><th scope="col">Begun</th><th scope="col">Ended</th><th scope="col" class="num">Rows</th><th scope="col" class="num">Rejects</th><th scope="col" class="num">Frames/s</th><th scope="col" class="num">Took</th><th scope="col">Most time in</th></tr></thead>
      <tbody>
        ${runs.map((run) => {
          const all = Object.values(run.stage_s).reduce((sum, one) => sum + one, 0);
          const first = Object.entries(run.stage_s).slice(0, 3).map(([name, seconds]) => `${name} ${percent(seconds / all)}`);
          return html`
            <tr key=${run.run_id}>
              <th scope="row"><code title=${`run key ${run.run_key}`}>${run.run_id}</code>${run.holder?.where && html`<br /><code class="soft">${run.holder.where}</code>`}</th>
              <td>${time(run.started_at)}</td>
              <td>${STATES[run.state] ?? run.state}</td>
              <td class="num">${run.clips?.toLocaleString("en") ?? "–"}</td>
              <td class="num">${run.rejects?.toLocaleString("en") ?? "–"}</td>
              <td class="num">${short(run.frames_per_s)}</td>
              <td class="num">${duration(run.wall_s)}</td>
              <td class="soft">${first.join(", ") || "–"}</td>
            </tr>
          `;
        })}
      </tbody>
    </table></div>
  `;
}

const STATES = { gone: "stopped without an end", silent: "no sign" };

// What each kind of index is for, by the beginning of its name.
const USES = { Inverted: "words", BTree: "filters", Bitmap: "filters", IVF: "likeness" };
const useOf = (kind) => Object.entries(USES).find(([start]) => kind.startsWith(start))?.[1] ?? kind;

/** What the indexes cover of `rows`, and what to do for the rest. */
export function Indexes({ indexes, rows }) {
  const command = html`<code>handloom index --db ${about.value?.uri ?? "DB"}</code>`;
  if (!rows) return null;
  if (!indexes.length) return html`<p class="soft">No index yet: searches compare all rows. ${command} builds them.</p>`;
  const most = Math.max(...indexes.map((index) => index.rows_waiting));
  const behind = indexes.filter((index) => index.rows_waiting > 0).length;
  return html`
    <p class=${most ? "behind" : "soft"}>${most
      ? html`${behind} of ${count(indexes.length, "index", "indexes")} ${behind === 1 ? "lacks" : "lack"} up to ${count(most, "row")} (${shareOf(most, rows)}). Results are complete all the same: these rows are compared one by one, which takes longer. ${command} adds them.`
      : `The indexes cover all ${count(rows, "row")}.`}</p>
    <div class="wide" tabindex="0" role="region" aria-label="Indexes"><table>
      <caption class="hidden-text">Indexes</caption>
      <thead><tr><th scope="col">Column</th><th scope="col" title="What it makes faster: searches by words, filters, searches by likeness">For</th><th scope="col" class="num">Covers</th><th scope="col" class="num">Rows not covered</th><th scope="col" class="num">MB</th><th scope="col" class="num" title="Of the true nearest rows, the share that a search by this index finds, measured when it was built">Recall</th></tr></thead>
      <tbody>
        ${indexes.map((index) => html`
          <tr key=${index.name}>
            <th scope="row">${index.column}</th>
            <td title=${`kind ${index.kind}`}>${useOf(index.kind)}</td>
            <td class="num">${shareOf(index.rows, index.rows + index.rows_waiting)}</td>
            <td class="num">${index.rows_waiting.toLocaleString("en")}</td>
            <td class="num">${short(index.bytes / 1e6)}</td>
            <td class="num">${short(index.recall)}</td>
          </tr>`)}
      </tbody>
    </table></div>
  `;
}

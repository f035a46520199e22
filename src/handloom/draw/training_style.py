"""The style of the training page: light and dark, on a screen and on paper."""

STYLE = """
:root { color-scheme: light dark; --bg: #fcfcfb; --ink: #1d1d1f; --soft: #62626a; --line: #dcdce0; --panel: #ffffff;
  --c0: #1f6fb4; --c1: #c8500a; --c2: #137a5b; --c3: #8a3f9e; --c4: #8a6d00; --c5: #a8284a; --plus: 31 111 180;
  --minus: 200 80 10; }
@media (prefers-color-scheme: dark) { :root { --bg: #17171a; --ink: #ececf0; --soft: #a2a2ac; --line: #3a3a42;
  --panel: #1f1f24; --c0: #6cb2ee; --c1: #ff9a4d; --c2: #4fc79c; --c3: #cf95e0; --c4: #d9bd4a; --c5: #f08aa4;
  --plus: 108 178 238; --minus: 255 154 77; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 2rem 1.25rem 4rem; background: var(--bg); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; min-width: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.facts div { border-left: 3px solid var(--c0); padding: .1rem .75rem; }
.facts b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts span { color: var(--soft); font-size: .85rem; }
p.headline { font-size: 1.1rem; }
.better, .worse { font-weight: 600; margin-left: .4rem; } .better { color: var(--c2); } .worse { color: var(--c5); }
.wide { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.wide > table { min-width: 60%; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td.text { text-align: left; font-weight: 500; }
td.text { overflow-wrap: anywhere; }
svg { width: 100%; max-width: 760px; height: auto; display: block; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg text { fill: var(--soft); font: 14px system-ui, sans-serif; }
svg path, svg line.level { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg path.faint { stroke-width: 1; opacity: .28; }
svg line.level { stroke-dasharray: 6 4; stroke-width: 1.5; }
.c0 { stroke: var(--c0); --own: var(--c0); } .c1 { stroke: var(--c1); --own: var(--c1); }
.c2 { stroke: var(--c2); --own: var(--c2); } .c3 { stroke: var(--c3); --own: var(--c3); }
.c4 { stroke: var(--c4); --own: var(--c4); } .c5 { stroke: var(--c5); --own: var(--c5); }
svg circle { fill: var(--own); stroke: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .4rem 0 0; padding: 0;
  font-size: .85rem; }
.legend i { display: inline-block; width: 1.4rem; border-top: 3px solid var(--own); margin-right: .4rem;
  vertical-align: middle; }
.legend i.level { border-top-style: dashed; border-top-width: 2px; }
figure { margin: 0; } figure img { width: 100%; height: auto; border-radius: 6px; display: block; }
.key i { display: inline-block; width: 1rem; height: .3rem; border-radius: 2px; margin: 0 .35rem 0 .8rem;
  vertical-align: middle; }
table.heat { min-width: 0; } table.heat td, table.heat th { border: 1px solid var(--panel); padding: .3rem .2rem;
  text-align: center; font-size: .7rem; white-space: nowrap; min-width: 1.4rem; }
  table.heat th:first-child { text-align: right; }
table.heat th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; font-weight: 500; }
td.plus { background: rgb(var(--plus) / calc(var(--share) * .85)); }
td.minus { background: rgb(var(--minus) / calc(var(--share) * .85)); }
td.strong { color: var(--bg); }
td.unknown { background: repeating-linear-gradient(45deg, var(--line) 0 3px, transparent 3px 7px); }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
.none { color: var(--soft); font-style: italic; }
@media print { body { max-width: none; } .panel { break-inside: avoid; } }
"""

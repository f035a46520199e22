// Bundles vendor.js and three.js into a folder, with the licences. The same packages (package-lock.json) give the same bytes.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = process.argv[2] ?? "../static/vendor";
await build({
  entryPoints: { "handloom-vendor": "vendor.js", "handloom-three": "three.js" },
  outdir: out,
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2021",
  charset: "utf8",
  legalComments: "eof",
});

const names = ["@preact/signals", "@preact/signals-core", "htm", "preact", "three"];
const licence = (name) => `${name} ${JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
writeFileSync(`${out}/LICENSES.txt`, names.map(licence).join("\n---\n\n"));

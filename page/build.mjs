// Bundles the page into the Python package, or with `--tests` its tests into build/.
// Anything but the same bytes for the same sources would make the committed build stale for nobody's
// reason: no date, no path, no hash goes into it.

import { build } from "esbuild";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const MAX_SCRIPT_BYTES = 64 * 1024; // gzipped
const PACKAGE = "../src/infertrace/collector/page";
const LICENSED = ["preact", "@preact/signals", "@preact/signals-core"];

const common = {
  bundle: true,
  charset: "utf8",
  format: "esm",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  logLevel: "warning",
  target: "es2022",
};

async function buildTests() {
  await rm("build", { recursive: true, force: true });
  const names = (await readdir("tests")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: names.map((name) => `tests/${name}`),
    outdir: "build",
    outExtension: { ".js": ".mjs" },
    platform: "node",
  });
}

async function buildPage(folder) {
  await mkdir(folder, { recursive: true });
  await build({
    ...common,
    entryPoints: { app: "src/app.tsx" },
    minify: true,
    outdir: folder,
  });
  await build({ ...common, entryPoints: { app: "src/style.css" }, minify: true, outdir: folder });
  for (const name of ["index.html", "icon.svg"]) {
    await copyFile(`src/${name}`, `${folder}/${name}`);
  }
  const licenses = await Promise.all(
    LICENSED.map(async (name) => {
      const { version, license } = JSON.parse(
        await readFile(`node_modules/${name}/package.json`, "utf8"),
      );
      const text = await readFile(`node_modules/${name}/LICENSE`, "utf8");
      return `${name} ${version} (${license})\n\n${text.trim()}\n`;
    }),
  );
  await writeFile(
    `${folder}/THIRD_PARTY_LICENSES.txt`,
    `What app.js contains beside infertrace itself:\n\n${licenses.join("\n\n")}`,
  );
  const size = gzipSync(await readFile(`${folder}/app.js`), { level: 9 }).length;
  console.log(`app.js: ${size} bytes gzipped, of at most ${MAX_SCRIPT_BYTES}`);
  if (size > MAX_SCRIPT_BYTES) {
    process.exitCode = 1;
  }
}

const [option, folder] = process.argv.slice(2);
await (option === "--tests" ? buildTests() : buildPage(option === "--out" ? folder : PACKAGE));

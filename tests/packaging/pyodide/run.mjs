// node run.mjs WHEEL PROGRAM: runs a Python program in Pyodide, with the wheel installed;
// prints the text that its last expression is.
import { readFileSync } from "node:fs";
import { loadPyodide } from "pyodide";

const [wheel, program] = process.argv.slice(2);
const pyodide = await loadPyodide({ stdout: (line) => console.error(line) });
await pyodide.loadPackage(wheel, { messageCallback: () => {} });
console.log(await pyodide.runPythonAsync(readFileSync(program, "utf8")));

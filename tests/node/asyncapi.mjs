// The official AsyncAPI parser: reads documents from stdin, one a line, and prints for each what is wrong with it, a JSON
// list a line.
import { createInterface } from "node:readline";
import { Parser } from "@asyncapi/parser";

for await (const line of createInterface({ input: process.stdin })) {
  const { diagnostics } = await new Parser().parse(line);
  const told = diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join("/") }));
  process.stdout.write(JSON.stringify(told) + "\n");
}

// The official AsyncAPI parser: reads a document from stdin, prints what is wrong with it as JSON, one diagnostic a line.
import { Parser } from "@asyncapi/parser";

let text = "";
for await (const chunk of process.stdin) text += chunk;
const { diagnostics } = await new Parser().parse(text);
for (const { severity, code, message, path } of diagnostics) {
  process.stdout.write(JSON.stringify({ severity, code, message, path: path.join("/") }) + "\n");
}

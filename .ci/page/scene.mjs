// The environment of the pages: an index, a host of crate files, a git host that stalls, mirrors, and cargo.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";

/** Runs a program to its end, and returns its output. */
export function run(program, args, options = {}) {
  const ended = spawnSync(program, args, { maxBuffer: 1 << 30, ...options });
  if (ended.status !== 0) {
    throw new Error(`${program} ${args.join(" ")}: ${ended.error ?? ended.stderr}`);
  }
  return ended.stdout;
}

/** Waits until `look` returns something. */
export async function eventually(what, look) {
  const end = Date.now() + 30_000;
  while (Date.now() < end) {
    const found = await look();
    if (found) {
      return found;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`timed out: ${what}`);
}

/** Listens on a free port of loopback. */
export async function listen(handler) {
  const server = http.createServer(handler);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${server.address().port}` };
}

/** The file of a library without dependencies. */
export function packLeaf(directory) {
  const source = path.join(directory, "leaf-1.0.0");
  fs.mkdirSync(path.join(source, "src"), { recursive: true });
  fs.writeFileSync(path.join(source, "Cargo.toml"), '[package]\nname = "leaf"\nversion = "1.0.0"\nedition = "2021"\n');
  fs.writeFileSync(path.join(source, "src/lib.rs"), "pub fn leaf() {}\n");
  return run("tar", ["--create", "--gzip", "--directory", directory, "leaf-1.0.0"]);
}

/** A bare index: this library, and so many crates besides. */
export function makeIndex(directory, leaf, count) {
  run("git", ["init", "--quiet", "--bare", "--initial-branch=master", directory]);
  const line = (name, cksum) => JSON.stringify({ name, vers: "1.0.0", deps: [], cksum, features: {}, yanked: false }) + "\n";
  const data = (text) => `data ${Buffer.byteLength(text)}\n${text}\n`;
  const committed = Math.floor(Date.now() / 1000) - 200;
  const parts = [
    `commit refs/heads/master\nmark :1\ncommitter index <index@example.invalid> ${committed} +0000\n`,
    data("index"),
    `M 100644 inline le/af/leaf\n${data(line("leaf", createHash("sha256").update(leaf).digest("hex")))}`,
  ];
  for (let number = 1; number < count; number += 1) {
    // The first letters vary, as those of real names do.
    const first = ((number * 7_919) % 456_976).toString(26).padStart(4, "0");
    const name = [...first].map((digit) => String.fromCharCode(97 + parseInt(digit, 26))).join("") + `-${number}`;
    parts.push(`M 100644 inline ${name.slice(0, 2)}/${name.slice(2, 4)}/${name}\n${data(line(name, "0".repeat(64)))}`);
  }
  run("git", ["--git-dir", directory, "fast-import", "--quiet"], { input: parts.join("") });
}

/** A git host that sends the larger half of the pack, and then nothing more. */
export async function stallingHost(index) {
  const upload = (args) => spawn("git", ["upload-pack", "--stateless-rpc", ...args, index]);
  return listen(async (request, response) => {
    const isQuestion = request.url.includes("/info/refs");
    const git = upload(isQuestion ? ["--advertise-refs"] : []);
    request.pipe(git.stdin);
    const answer = Buffer.concat(await git.stdout.toArray());
    response.setHeader("content-type", `application/x-git-upload-pack-${isQuestion ? "advertisement" : "result"}`);
    if (isQuestion) {
      response.write("001e# service=git-upload-pack\n0000");
    }
    if (answer.includes("PACK")) {
      response.write(answer.subarray(0, 0.6 * answer.length));
    } else {
      response.end(answer);
    }
  });
}

/** A mirror on a free port. */
export class Mirror {
  static async start(program, directory, settings) {
    const { server, url } = await listen();
    const port = new URL(url).port;
    await new Promise((resolve) => server.close(resolve));
    fs.mkdirSync(directory, { recursive: true });
    const log = fs.openSync(path.join(directory, "log"), "w");
    const env = { PATH: process.env.PATH, HOME: directory, BIND_ADDRESS: "127.0.0.1", PORT: port, PUBLIC_URL: url };
    const mirror = new Mirror();
    mirror.url = url;
    mirror.port = port;
    mirror.process = spawn(program, [], {
      env: { ...env, DATA_DIR: path.join(directory, "data"), ...settings },
      stdio: ["ignore", log, log],
    });
    await eventually("the mirror listens", () => fetch(`${url}/livez`).catch(() => null));
    return mirror;
  }

  /** Waits until the mirror says that it is in this state, and that this holds. */
  async waitFor(state, also = () => true) {
    let seen;
    const holds = async () => {
      seen = await (await fetch(`${this.url}/status`)).json();
      return seen.state === state && also(seen);
    };
    await eventually(`the mirror is ${state}`, holds).catch((error) => {
      throw new Error(`${error.message}: ${JSON.stringify(seen)}`);
    });
  }

  async stop() {
    this.process.kill("SIGTERM");
    await once(this.process, "exit");
  }
}

/** Has cargo, which knows nothing else than this config.toml, fetch a library. Crate files come from this process, which
 * therefore must not block meanwhile. */
export async function fetchWithCargo(directory, config) {
  fs.mkdirSync(path.join(directory, "home"), { recursive: true });
  fs.mkdirSync(path.join(directory, "project/src"), { recursive: true });
  fs.writeFileSync(path.join(directory, "home/config.toml"), config);
  fs.writeFileSync(
    path.join(directory, "project/Cargo.toml"),
    '[package]\nname = "probe"\nedition = "2021"\n[dependencies]\nleaf = "1"\n',
  );
  fs.writeFileSync(path.join(directory, "project/src/lib.rs"), "");
  const env = { ...process.env, CARGO_HOME: path.join(directory, "home") };
  for (const name of Object.keys(env)) {
    if (/proxy|^CARGO_(REGISTR|SOURCE|HTTP|NET)/i.test(name)) {
      delete env[name];
    }
  }
  const cargo = spawn("cargo", ["fetch"], { cwd: path.join(directory, "project"), env, stdio: "inherit" });
  const [code] = await once(cargo, "exit");
  if (code !== 0) {
    throw new Error(`cargo fetch ended with ${code}`);
  }
  const lock = fs.readFileSync(path.join(directory, "project/Cargo.lock"), "utf8");
  if (!lock.includes('name = "leaf"')) {
    throw new Error(`cargo did not find the library:\n${lock}`);
  }
}

// See `run`.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

import puppeteer from "puppeteer-core";

import { Mirror, fetchWithCargo, listen, makeIndex, packLeaf, stallingHost } from "./scene.mjs";

const [program, chromium, screenshots, temporary, count] = process.argv.slice(2);
const axe = fs.readFileSync(path.join(temporary, "node_modules/axe-core/axe.min.js"), "utf8");
/** For Chromium a name that is not `localhost` is no secure context: on plain HTTP it has no clipboard API. */
const PLAIN_HOST = "mirror.test";
const VIEWS = [
  ["light", 1000, "light"],
  ["dark", 1000, "dark"],
  ["320", 320, "light"],
  ["320-dark", 320, "dark"],
];

const index = path.join(temporary, "index.git");
const leaf = packLeaf(temporary);
makeIndex(index, leaf, Number(count));
const files = await listen((request, response) => response.end(leaf));
const slow = await stallingHost(index);
const browser = await puppeteer.launch({
  executablePath: chromium,
  // The sandbox does not work for root in a container. The only pages are our own.
  args: ["--no-sandbox", "--no-proxy-server", `--host-resolver-rules=MAP ${PLAIN_HOST} 127.0.0.1`],
});
const mirrors = [];

async function mirror(name, settings) {
  const started = await Mirror.start(program, path.join(temporary, name), {
    DOWNLOAD_URL: `${files.url}/{crate}-{version}.crate`,
    REFRESH_INTERVAL_SECS: "1",
    ...settings,
  });
  mirrors.push(started);
  return started;
}

/** Opens a page. Whatever its console reports fails the run. */
async function open(url, { width = 1000, scheme = "light", before, script = true, status = 200 } = {}) {
  const page = await browser.newPage();
  await page.setJavaScriptEnabled(script);
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("requestfailed", (request) => page.complaints.push(`${request.url()}: ${request.failure().errorText}`));
  page.on("console", (message) => {
    // Chromium reports the status of the page itself, which is asserted below.
    if (["error", "warn"].includes(message.type()) && !(status !== 200 && message.text().includes(`${status}`))) {
      page.complaints.push(message.text());
    }
  });
  if (before !== undefined) {
    await page.evaluateOnNewDocument(before);
  }
  const response = await page.goto(url);
  assert.equal(response.status(), status, url);
  return page;
}

async function close(page) {
  assert.deepEqual(page.complaints, []);
  await page.close();
}

/** One look at a page in each view. */
async function look(name, url, options = {}) {
  for (const [view, width, scheme] of VIEWS) {
    const page = await open(url, { ...options, width, scheme });
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run());
    const violations = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
    assert.deepEqual(violations, [], `${name}, ${view}`);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, `${name}, ${view}: too wide`);
    await page.screenshot({ path: path.join(screenshots, `${name}-${view}.png`), fullPage: true });
    await close(page);
  }
  console.log(`ok: ${name}: ${VIEWS.map(([view]) => view).join(", ")}: console, axe-core, width`);
}

const isShown = (page, selector) => page.$eval(selector, (element) => element.checkVisibility());

/** Copies a block with its button, and pastes it. */
async function copied(page, block) {
  const button = await page.$(`button[data-copies=${block}]`);
  await button.click();
  const says = (element) => element.textContent.startsWith("Copied") && document.getElementById("said").textContent === "Copied";
  await page.waitForFunction(says, {}, button);
  await page.evaluate(() => document.body.append(Object.assign(document.createElement("textarea"), { id: "pasted" })));
  await page.focus("#pasted");
  await page.keyboard.press("v", { commands: ["Paste"] });
  const text = await page.$eval("#pasted", (element) => element.value);
  await page.$eval("#pasted", (element) => element.remove());
  return text;
}

async function copyButtons({ url, port }) {
  let number = 0;
  const works = (config) => fetchWithCargo(path.join(temporary, `cargo-${(number += 1)}`), config);
  for (const host of ["127.0.0.1", PLAIN_HOST]) {
    const page = await open(`http://${host}:${port}/`);
    assert.equal(await page.evaluate(() => isSecureContext), host !== PLAIN_HOST);
    await works(await copied(page, "sparse-toml"));
    await page.click("label[for=git]");
    await works(await copied(page, "git-toml"));
    await close(page);
    console.log(`ok: cargo works with what is copied at ${host}, from the sparse and from the git index`);
  }
  await works(await (await fetch(`${url}/config.toml`)).text());
  console.log("ok: cargo works with /config.toml");

  const old = await open(`http://${PLAIN_HOST}:${port}/`, {
    before: () => {
      document.queryCommandSupported = () => false;
    },
  });
  assert.equal(await isShown(old, "button[data-copies=sparse-toml]"), false);
  await close(old);
  console.log("ok: no button where a browser cannot copy");
}

async function withoutScript({ url }) {
  const page = await open(url, { script: false });
  assert.equal(await isShown(page, "button[data-copies=sparse-toml]"), false);
  for (const [key, shown, hidden] of [
    [null, "#sparse-toml", "#git-toml"],
    ["ArrowRight", "#git-toml", "#sparse-toml"],
    ["ArrowLeft", "#sparse-toml", "#git-toml"],
  ]) {
    if (key === null) {
      await page.focus("header a");
      await page.keyboard.press("Tab");
    } else {
      await page.keyboard.press(key);
    }
    assert.deepEqual([await isShown(page, shown), await isShown(page, hidden)], [true, false]);
  }
  await close(page);
  console.log("ok: without JavaScript the tabs work with the keyboard, and there is no copy button");
}

try {
  const cloning = await mirror("cloning", { GIT_REPO_URL: `${slow.url}/index.git` });
  await cloning.waitFor("cloning", (status) => status.index.progress.received_objects > 0);
  await look("cloning", cloning.url);
  const page = await open(cloning.url);
  await page.waitForNavigation({ timeout: 8_000 });
  await close(page);
  console.log("ok: the page refreshes while the index is cloned");

  const failing = await mirror("failing", { GIT_REPO_URL: "http://127.0.0.1:1/index.git", PUBLIC_URL: "" });
  await failing.waitFor("failing");
  await look("failing", failing.url);

  const stale = await mirror("stale", { GIT_REPO_URL: index, MAX_STALENESS_SECS: "1", REFRESH_INTERVAL_SECS: "60" });
  await stale.waitFor("stale");
  await look("stale", stale.url);

  const ready = await mirror("ready", { GIT_REPO_URL: index, MIN_PUBLISH_AGE: "7 days" });
  await ready.waitFor("ready", (status) => status.git_index);
  await look("ready", ready.url);
  await look("me", `${ready.url}/me`);
  await look("not-found", `${ready.url}/nothing/here`, { status: 404 });
  await copyButtons(ready);
  await withoutScript(ready);
  const git = await open(ready.url);
  await git.click("label[for=git]");
  await git.click("summary");
  await git.screenshot({ path: path.join(screenshots, "ready-git.png"), fullPage: true });
  await close(git);
} finally {
  await browser.close();
  await Promise.all(mirrors.map((running) => running.stop()));
  for (const { server } of [files, slow]) {
    server.closeAllConnections();
    server.close();
  }
}
console.log("all is well");

// The JavaScript client, as it is: one event that the catalogue names and one that it does not.
const { StatsigClient } = require("@statsig/js-client");

const url = process.env.BAILEE_SERVICE.replace(/\/$/, "");
const canary = "canary/in/a/path";

async function main() {
  const client = new StatsigClient(`client-${process.env.ANTHROPIC_AUTH_TOKEN}`, { userID: canary }, {
    networkConfig: { api: `${url}/v1` },
    loggingEnabled: "always",
  });
  await client.initializeAsync();
  client.logEvent("bailee.turn", null, { version: "1.2.3", outcome: "done", rounds: "3", path: canary });
  client.logEvent(canary, canary);
  await client.flush();
  await client.shutdown();
}

main().then(() => console.log("done"));

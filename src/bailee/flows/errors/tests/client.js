// Sentry's SDK for node as it is: an error with a path in its message.
const Sentry = require("@sentry/node");

const canary = "canary/in/a/path";
const url = new URL(process.env.BAILEE_SERVICE);
Sentry.init({
  dsn: `http://${process.env.ANTHROPIC_AUTH_TOKEN}@${url.host}/1`,
  release: "claude-code@1.2.3",
  serverName: canary,
  sendDefaultPii: true,
});
Sentry.setTag("tag", canary);
Sentry.captureException(new TypeError(canary));
Sentry.captureMessage(canary);
Sentry.flush(10000).then((done) => console.log("done", done));

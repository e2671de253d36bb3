// A certified OpenID Connect provider (npm `oidc-provider`) on loopback: what BAILEE_TEST_PROVIDER says, as JSON:
// port, client, secret, back (redirect addresses), people (claims by what a person types as their login).
import { Provider } from "oidc-provider";

const given = JSON.parse(process.env.BAILEE_TEST_PROVIDER);
const issuer = `http://127.0.0.1:${given.port}`;
const provider = new Provider(issuer, {
  clients: [{ client_id: given.client, client_secret: given.secret, redirect_uris: given.back }],
  claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email", "email_verified"] },
  conformIdTokenClaims: false,
  findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id, ...given.people[id] }) }),
  pkce: { required: () => true },
});
provider.listen(given.port, "127.0.0.1", () => process.stdout.write("ready\n"));

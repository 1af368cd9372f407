// A real OpenID Connect provider (the npm package oidc-provider) for tests, which signs people in without asking them.
//
//   node provider.mjs MODULES PORT REDIRECT_URI
//
// /control/person takes the person who signs in next, as JSON: `sub` and further claims.
// /control/token takes changes of the next ID tokens: `claims`, `header`, `sign` ("none", "public-key-as-secret", "stranger").
// /control/clock sets how many seconds its clock is ahead.
// /control/rotate replaces the key that signs. /control/requests counts requests by path. /control/sign signs the claims of a machine.
import { createServer } from 'node:http';
import { createHmac, generateKeyPairSync } from 'node:crypto';
import { pathToFileURL } from 'node:url';

const [modules, port, redirectUri] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${modules}/node_modules/${path}`));
const { Provider } = await load('oidc-provider/lib/index.js');
const jose = await load('jose/dist/webapi/index.js');

let ahead = 0;
const realNow = Date.now;
Date.now = () => realNow() + ahead * 1000;

const issuer = `http://127.0.0.1:${port}`;
let person = { sub: 'ada-1' };
let change = {};
let rotations = 0;
let signing;
let provider;
const people = new Map();
const requests = {};

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  rotations += 1;
  const extra = { kid: `key-${rotations}`, alg: 'RS256', use: 'sig' };
  signing = { ...privateKey.export({ format: 'jwk' }), ...extra };
}

function newProvider() {
  provider = new Provider(issuer, {
    clients: [{
      client_id: 'shipway',
      client_secret: 'a client secret: 100%',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code'],
      response_types: ['code'],
    }],
    jwks: { keys: [signing] },
    cookies: { keys: ['a key of cookies'] },
    claims: { openid: ['sub'], profile: ['preferred_username', 'name'], email: ['email', 'email_verified'], groups: ['groups'] },
    scopes: ['openid', 'profile', 'email', 'groups'],
    pkce: { required: () => true },
    ttl: { AuthorizationCode: 60, IdToken: 300, AccessToken: 300, Session: 3600, Grant: 3600, Interaction: 600 },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ ...people.get(id), sub: id }) }),
  });
}

async function interact(request, response) {
  const details = await provider.interactionDetails(request, response);
  if (person.refused) {
    const result = { error: 'access_denied', error_description: 'the person said no' };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
  if (details.prompt.name === 'login') {
    people.set(person.sub, person);
    const result = { login: { accountId: person.sub } };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
  const grant = new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id });
  grant.addOIDCScope(details.params.scope);
  const result = { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

async function sign(claims, header = {}, by = 'provider') {
  const full = { alg: 'RS256', kid: signing.kid, ...header };
  if (by === 'none') return `${encode({ ...full, alg: 'none' })}.${encode(claims)}.`;
  if (by === 'public-key-as-secret') {
    const message = `${encode({ ...full, alg: 'HS256' })}.${encode(claims)}`;
    return `${message}.${createHmac('sha256', Buffer.from(signing.n, 'base64url')).update(message).digest('base64url')}`;
  }
  const stranger = () => generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const key = by === 'stranger' ? stranger() : await jose.importJWK(signing, 'RS256');
  return new jose.SignJWT(claims).setProtectedHeader(full).sign(key);
}

// The response of the token endpoint, with the ID token changed and signed again.
async function changeToken(body) {
  const answer = JSON.parse(body);
  if (!answer.id_token || !Object.keys(change).length) return body;
  const claims = { ...jose.decodeJwt(answer.id_token), ...change.claims };
  answer.id_token = await sign(claims, change.header, change.sign);
  return JSON.stringify(answer);
}

function withChangedToken(request, response) {
  const parts = [];
  const { end } = response;
  response.write = (part) => parts.push(Buffer.from(part));
  response.end = async (part) => {
    if (part) parts.push(Buffer.from(part));
    const body = await changeToken(Buffer.concat(parts).toString());
    response.setHeader('content-length', Buffer.byteLength(body));
    end.call(response, body);
  };
  provider.callback()(request, response);
}

async function control(path, request, response) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = parts.length ? JSON.parse(Buffer.concat(parts)) : {};
  let answer = {};
  if (path === '/control/person') person = body;
  if (path === '/control/token') change = body;
  if (path === '/control/clock') ahead = body.seconds;
  if (path === '/control/rotate') { newKey(); newProvider(); }
  if (path === '/control/requests') answer = requests;
  if (path === '/control/sign') answer = { token: await sign(body.claims, body.header, body.sign) };
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(answer));
}

newKey();
newProvider();
createServer((request, response) => {
  const path = new URL(request.url, issuer).pathname;
  if (path.startsWith('/control/')) return control(path, request, response);
  requests[path] = (requests[path] ?? 0) + 1;
  if (path.startsWith('/interaction/')) return interact(request, response);
  if (path === '/token') return withChangedToken(request, response);
  return provider.callback()(request, response);
}).listen(Number(port), '127.0.0.1', () => console.log('ready'));

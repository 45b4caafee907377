// The managed identity clients of @azure/identity and @azure/msal-node, in a process whose environment says where they
// are: as foreign_clients.py, with which it shares its questions and answers.
//
//     node foreign_clients.mjs FOLDER
//
// takes the packages from FOLDER/node_modules.

import { createRequire } from "node:module";
import { json } from "node:stream/consumers";
import { resolve } from "node:path";

const require = createRequire(resolve(process.argv[2], "any"));
const { ManagedIdentityCredential } = require("@azure/identity");
const { ManagedIdentityApplication } = require("@azure/msal-node");

const CREDENTIAL = { client_id: "clientId", object_id: "objectId", resource_id: "resourceId" };
const APPLICATION = {
  client_id: "userAssignedClientId",
  object_id: "userAssignedObjectId",
  resource_id: "userAssignedResourceId",
};

async function azureIdentity({ kind, id, resource }) {
  const credential = kind ? new ManagedIdentityCredential({ [CREDENTIAL[kind]]: id }) : new ManagedIdentityCredential();
  const { token, expiresOnTimestamp } = await credential.getToken(`${resource}/.default`);
  return { token, expires_on: expiresOnTimestamp / 1000 };
}

async function msalNode({ kind, id, resource }) {
  const application = new ManagedIdentityApplication(
    kind ? { managedIdentityIdParams: { [APPLICATION[kind]]: id } } : {},
  );
  const { accessToken, expiresOn } = await application.acquireToken({ resource });
  return { token: accessToken, expires_on: expiresOn.getTime() / 1000 };
}

const CLIENTS = { js_azure_identity: azureIdentity, js_msal_node: msalNode };

async function answer(question) {
  try {
    return await CLIENTS[question.client](question);
  } catch (error) {
    return { error: String(error) };
  }
}

const questions = await json(process.stdin);
process.stdout.write(JSON.stringify(await Promise.all(questions.map(answer))));

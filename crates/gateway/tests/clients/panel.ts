// The API as a panel in TypeScript calls it: Connect, gRPC and gRPC-Web, with code that is generated from the contract.
//
// panel.ts ADDRESS; the secrets are in the environment. Ends with 0 if all is as it should be.
import assert from "node:assert/strict";
import { type Client, Code, ConnectError, type Transport, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import {
  AddressState,
  ProblemSchema,
  StepState,
  SuperadminService,
  VPSGatewayService,
} from "./pve_public_ip/v1/gateway_pb.js";

const baseUrl = `http://${process.argv[2]}`;
const panel = { headers: { "x-api-secret": process.env.GATEWAY_API_SECRET ?? "" } };
const superadmin = { headers: { authorization: `Bearer ${process.env.SUPERADMIN_API_SECRET ?? ""}` } };

/** The error is this one, and carries the problem as a typed detail. */
async function refused(call: Promise<unknown>, status: Code, code: string): Promise<void> {
  const error = await call.then(
    () => assert.fail(`${code} was not refused`),
    (error: unknown) => ConnectError.from(error),
  );
  const [problem] = error.findDetails(ProblemSchema);
  assert.deepEqual([error.code, problem?.code, problem?.sentence], [status, code, error.rawMessage]);
  assert.ok(problem?.hint, code);
}

/** Waits for the next event of this kind. */
async function event(events: AsyncIterator<{ event: string; ipAddress: string; vmid: string }>, wanted: string) {
  for (;;) {
    const { value, done } = await events.next();
    assert.ok(!done, `the stream ended before ${wanted}`);
    if (value.event === wanted) {
      return value;
    }
  }
}

/** The life of an address. */
async function life(transport: Transport, address: string): Promise<void> {
  const gateway: Client<typeof VPSGatewayService> = createClient(VPSGatewayService, transport);
  const operator: Client<typeof SuperadminService> = createClient(SuperadminService, transport);

  await refused(gateway.getGatewayInfo({}), Code.Unauthenticated, "api-key-refused");
  await refused(operator.listPools({}, panel), Code.PermissionDenied, "api-key-limited");
  await refused(gateway.getPublicIP({ publicIp: "x" }, panel), Code.InvalidArgument, "request-invalid");
  await refused(gateway.getPublicIP({ publicIp: "192.0.2.1" }, panel), Code.NotFound, "address-in-no-pool");

  const created = await operator.createVPSPublicIP({ ipAddress: address, monthlyCostCents: 199n, pool: "ovh-rbx" }, superadmin);
  assert.deepEqual([created.changed, created.ip?.state, created.ip?.monthlyCostCents], [true, AddressState.FREE, 199n]);

  const ended = new AbortController();
  const events = gateway.watchPublicIPs({}, { ...panel, signal: ended.signal })[Symbol.asyncIterator]();
  await event(events, "ready");

  const assigned = await operator.assignVPSPublicIP({ ipId: created.ipId, vpsId: "shop" }, superadmin);
  assert.equal(assigned.ip?.vmid, "101");
  assert.equal(assigned.steps.find((step) => step.name === "registry")?.state, StepState.DONE);
  const heard = await event(events, "assigned");
  assert.deepEqual([heard.ipAddress, heard.vmid], [address, "101"]);
  ended.abort();

  const again = await gateway.allocatePublicIP({ vpsId: "101", publicIp: address }, panel);
  assert.deepEqual([again.changed, again.ipAddress], [false, address]);
  await refused(gateway.allocatePublicIP({ vpsId: "mail", publicIp: address }, panel), Code.AlreadyExists, "address-taken");
  const listed = await gateway.listPublicIPs({ vpsId: "shop" }, panel);
  assert.deepEqual(listed.ips.map((ip) => ip.ipAddress), [address]);
  const verified = await operator.verifySecurity({ vpsId: "shop" }, superadmin);
  assert.deepEqual(verified.checks.flatMap((check) => check.ipAddresses), [address]);

  const released = await gateway.releasePublicIP({ vpsId: "shop", publicIp: address }, panel);
  assert.equal(released.changed, true);
  assert.equal((await operator.deleteVPSPublicIP({ ipId: created.ipId }, superadmin)).changed, true);
}

const transports: [string, Transport][] = [
  ["Connect, protobuf, HTTP/1.1", createConnectTransport({ baseUrl, httpVersion: "1.1" })],
  ["Connect, JSON, HTTP/2", createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false })],
  ["Connect, GET", createConnectTransport({ baseUrl, httpVersion: "2", useHttpGet: true })],
  ["gRPC", createGrpcTransport({ baseUrl })],
  ["gRPC-Web, HTTP/1.1", createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })],
  ["gRPC-Web, HTTP/2", createGrpcWebTransport({ baseUrl, httpVersion: "2" })],
];
for (const [index, [name, transport]] of transports.entries()) {
  await life(transport, `203.0.113.${80 + index}`);
  console.log(`${name}: all is as it should be`);
}
// Connections that are kept for later calls would keep the process.
process.exit(0);

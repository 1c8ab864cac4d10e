"""The API as a panel in Python calls it: gRPC, with stubs that are generated from the contract.

client.py ADDRESS PROTO DIRECTORY; the secrets are in the environment. Ends with 0 if all is as it should be.
"""

import concurrent.futures
import os
import subprocess
import sys

address, proto, directory = sys.argv[1:]
contract = "pve_public_ip/v1/gateway.proto"
subprocess.run(
    [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"--python_out={directory}", f"--grpc_python_out={directory}", contract],
    check=True,
)
sys.path.insert(0, directory)

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from pve_public_ip.v1 import gateway_pb2 as pb
from pve_public_ip.v1 import gateway_pb2_grpc as api

channel = grpc.insecure_channel(address)
gateway = api.VPSGatewayServiceStub(channel)
operator = api.SuperadminServiceStub(channel)
panel = [("x-api-secret", os.environ["GATEWAY_API_SECRET"])]
superadmin = [("authorization", "Bearer " + os.environ["SUPERADMIN_API_SECRET"])]


def same(found, expected):
    assert found == expected, f"{found!r}, expected {expected!r}"


def refused(call, request, metadata, status, code, words=""):
    """The error is this one, and carries the problem as a typed detail."""
    try:
        call(request, metadata=metadata, timeout=60)
    except grpc.RpcError as error:
        same((error.code(), error.details()), (status, error.details()))
        details = rpc_status.from_call(error).details
        problem = pb.Problem()
        assert details[0].Unpack(problem), details
        same(problem.code, code)
        assert problem.hint and problem.sentence == error.details() and words in problem.sentence, problem
        return problem
    raise AssertionError(f"{request} was not refused")


def call(method, request, metadata):
    return method(request, metadata=metadata, timeout=60)


# Who may.
refused(gateway.GetGatewayInfo, pb.GetGatewayInfoRequest(), [], grpc.StatusCode.UNAUTHENTICATED, "api-key-refused")
refused(operator.ListPools, pb.ListPoolsRequest(), panel, grpc.StatusCode.PERMISSION_DENIED, "api-key-limited")
refused(
    gateway.GetPublicIP, pb.GetPublicIPRequest(public_ip="x"), panel, grpc.StatusCode.INVALID_ARGUMENT, "request-invalid", "public_ip: `x`"
)

# Health and reflection, without a key.
health = health_pb2_grpc.HealthStub(channel)
for service in ["", "pve_public_ip.v1.VPSGatewayService"]:
    same(health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status, health_pb2.HealthCheckResponse.SERVING)
services = ProtoReflectionDescriptorDatabase(channel).get_services()
assert "pve_public_ip.v1.SuperadminService" in services, services

# The life of an address.
info = call(gateway.GetGatewayInfo, pb.GetGatewayInfoRequest(), panel)
same(info.node, "n1")
created = call(operator.CreateVPSPublicIP, pb.CreateVPSPublicIPRequest(ip_address="203.0.113.77", monthly_cost_cents=150, pool="ovh-rbx"), superadmin)
same((created.changed, created.ip.state, created.ip.monthly_cost_cents), (True, pb.ADDRESS_STATE_FREE, 150))
ip_id = created.ip_id
watcher = gateway.WatchPublicIPs(pb.WatchPublicIPsRequest(), metadata=panel, timeout=120)
same(next(watcher).event, "ready")
assigned = call(operator.AssignVPSPublicIP, pb.AssignVPSPublicIPRequest(ip_id=ip_id, vps_id="shop", organization_id="acme"), superadmin)
same((assigned.changed, assigned.ip.vmid, assigned.ip.organization_id), (True, "101", "acme"))
states = {step.name: step.state for step in assigned.steps}
same(states["registry"], pb.STEP_STATE_DONE)
again = call(operator.AssignVPSPublicIP, pb.AssignVPSPublicIPRequest(ip_id=ip_id, vps_id="101", organization_id="acme"), superadmin)
same((again.changed, again.ip), (False, assigned.ip))
for event in watcher:
    if event.event == "assigned":
        same((event.ip_address, event.vmid), ("203.0.113.77", "101"))
        break
watcher.cancel()
refused(
    gateway.AllocatePublicIP,
    pb.AllocatePublicIPRequest(vps_id="mail", public_ip="203.0.113.77"),
    panel,
    grpc.StatusCode.ALREADY_EXISTS,
    "address-taken",
)
refused(
    gateway.AllocatePublicIP,
    pb.AllocatePublicIPRequest(vps_id="mail", public_ip="198.51.100.1"),
    panel,
    grpc.StatusCode.NOT_FOUND,
    "address-in-no-pool",
)
refused(
    gateway.AllocatePublicIP, pb.AllocatePublicIPRequest(vps_id="nobody", public_ip="203.0.113.10"), panel, grpc.StatusCode.NOT_FOUND, "unknown-guest"
)
refused(
    gateway.ReleasePublicIP,
    pb.ReleasePublicIPRequest(vps_id="shop", public_ip="203.0.113.77", mac_address="02:00:00:aa:bb:02"),
    panel,
    grpc.StatusCode.FAILED_PRECONDITION,
    "mac-not-of-guest",
)
got = call(gateway.GetPublicIP, pb.GetPublicIPRequest(public_ip=ip_id), panel)
same(got.ip, assigned.ip)
verified = call(operator.VerifySecurity, pb.VerifySecurityRequest(vps_id="shop"), superadmin)
same(verified.checks[0].ip_addresses[0], "203.0.113.77")
listed = call(gateway.ListPublicIPs, pb.ListPublicIPsRequest(vps_id="shop"), panel)
same([ip.ip_address for ip in listed.ips], ["203.0.113.77"])
released = call(gateway.ReleasePublicIP, pb.ReleasePublicIPRequest(vps_id="shop", public_ip="203.0.113.77", mac_address="02:00:00:AA:BB:01"), panel)
same(released.changed, True)
released = call(gateway.ReleasePublicIP, pb.ReleasePublicIPRequest(vps_id="shop", public_ip="203.0.113.77"), panel)
same(released.changed, False)
history = call(operator.GetVPSPublicIPHistory, pb.GetVPSPublicIPHistoryRequest(ip_id=ip_id), superadmin)
same((history.holdings[0].vmid, history.holdings[0].until != ""), ("101", True))
same(call(operator.DeleteVPSPublicIP, pb.DeleteVPSPublicIPRequest(ip_id=ip_id), superadmin).changed, True)
pools = call(operator.ListPools, pb.ListPoolsRequest(), superadmin).pools
same([pool.name for pool in pools], ["ovh-rbx"])

# Many at once: each guest gets its own address, and none is given twice.
guests = [f"guest{number}" for number in range(110, 122)]


def allocate(guest):
    return call(gateway.AllocatePublicIP, pb.AllocatePublicIPRequest(vps_id=guest, pool="many"), panel).ip_address


call(
    operator.CreatePool,
    pb.CreatePoolRequest(name="many", profile="generic-bridged", bridge="vmbr0", gateway4="198.51.100.1", addresses=["198.51.100.32/28"]),
    superadmin,
)
with concurrent.futures.ThreadPoolExecutor(len(guests)) as threads:
    addresses = list(threads.map(allocate, guests))
same(len(set(addresses)), len(guests))
held = call(gateway.ListPublicIPs, pb.ListPublicIPsRequest(pool="many", page_size=5), panel)
found = [ip.ip_address for ip in held.ips]
while held.next_page_token:
    held = call(gateway.ListPublicIPs, pb.ListPublicIPsRequest(pool="many", page_size=5, page_token=held.next_page_token), panel)
    found += [ip.ip_address for ip in held.ips]
same(sorted(found), sorted(addresses))
print("all is as it should be")

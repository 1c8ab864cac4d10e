#!/bin/sh
# Subnets of a plan (per-service, base 10.20.0.0/16) for Proxmox VE's SDN.
# Without an argument it only prints the commands. Read them, then run it with --apply on one node.
# Needs Proxmox VE 8.1 or later and the VLAN-aware bridge vmbr1 on every node. What exists already makes it stop.
set -eu
apply=${1-}
run() {
    printf '%s\n' "$*"
    [ "$apply" != --apply ] || "$@"
}

run pvesh create /cluster/sdn/zones --type vlan --zone planned --bridge vmbr1
run pvesh create /cluster/sdn/vnets --vnet vlan100 --zone planned --tag 100 --alias svc-db
run pvesh create /cluster/sdn/vnets/vlan100/subnets --type subnet --subnet 10.20.0.0/28 --gateway 10.20.0.1
run pvesh create /cluster/sdn/vnets/vlan100/subnets --type subnet --subnet fd00::/64 --gateway fd00::1
run pvesh create /cluster/sdn/vnets --vnet vlan101 --zone planned --tag 101 --alias svc-endpoint
run pvesh create /cluster/sdn/vnets/vlan101/subnets --type subnet --subnet 10.20.0.16/28 --gateway 10.20.0.17
run pvesh create /cluster/sdn/vnets/vlan101/subnets --type subnet --subnet fd00:0:0:1::/64 --gateway fd00:0:0:1::1
run pvesh create /cluster/sdn/vnets --vnet vlan102 --zone planned --tag 102 --alias svc-monitoring
run pvesh create /cluster/sdn/vnets/vlan102/subnets --type subnet --subnet 10.20.0.32/29 --gateway 10.20.0.33
run pvesh create /cluster/sdn/vnets/vlan102/subnets --type subnet --subnet fd00:0:0:2::/64 --gateway fd00:0:0:2::1
run pvesh create /cluster/sdn/vnets --vnet vlan103 --zone planned --tag 103 --alias svc-proxy
run pvesh create /cluster/sdn/vnets/vlan103/subnets --type subnet --subnet 10.20.0.40/29 --gateway 10.20.0.41
run pvesh create /cluster/sdn/vnets/vlan103/subnets --type subnet --subnet fd00:0:0:3::/64 --gateway fd00:0:0:3::1
run pvesh create /cluster/firewall/groups --group to-vlan100 --comment into:svc-db
run pvesh create /cluster/firewall/groups/to-vlan100 --type in --action ACCEPT --enable 1 --source 10.20.0.16/28 --proto tcp --dport 5432 --comment from:svc-endpoint
run pvesh create /cluster/firewall/groups/to-vlan100 --type in --action ACCEPT --enable 1 --source fd00:0:0:1::/64 --proto tcp --dport 5432 --comment from:svc-endpoint
run pvesh create /cluster/firewall/groups/to-vlan100 --type in --action ACCEPT --enable 1 --source 10.20.0.32/29 --proto tcp --dport 9100 --comment from:svc-monitoring
run pvesh create /cluster/firewall/groups/to-vlan100 --type in --action ACCEPT --enable 1 --source fd00:0:0:2::/64 --proto tcp --dport 9100 --comment from:svc-monitoring
run pvesh create /cluster/firewall/groups --group to-vlan101 --comment into:svc-endpoint
run pvesh create /cluster/firewall/groups/to-vlan101 --type in --action ACCEPT --enable 1 --source 10.20.0.32/29 --proto tcp --dport 9100 --comment from:svc-monitoring
run pvesh create /cluster/firewall/groups/to-vlan101 --type in --action ACCEPT --enable 1 --source fd00:0:0:2::/64 --proto tcp --dport 9100 --comment from:svc-monitoring
run pvesh create /cluster/firewall/groups/to-vlan101 --type in --action ACCEPT --enable 1 --source 10.20.0.40/29 --proto tcp --dport 8080 --comment from:svc-proxy
run pvesh create /cluster/firewall/groups/to-vlan101 --type in --action ACCEPT --enable 1 --source fd00:0:0:3::/64 --proto tcp --dport 8080 --comment from:svc-proxy
run pvesh create /cluster/firewall/groups --group to-vlan103 --comment into:svc-proxy
run pvesh create /cluster/firewall/groups/to-vlan103 --type in --action ACCEPT --enable 1 --proto tcp --dport 80 --comment from:internet
run pvesh create /cluster/firewall/groups/to-vlan103 --type in --action ACCEPT --enable 1 --proto tcp --dport 443 --comment from:internet
run pvesh create /cluster/firewall/groups/to-vlan103 --type in --action ACCEPT --enable 1 --source 10.20.0.32/29 --proto tcp --dport 9100 --comment from:svc-monitoring
run pvesh create /cluster/firewall/groups/to-vlan103 --type in --action ACCEPT --enable 1 --source fd00:0:0:2::/64 --proto tcp --dport 9100 --comment from:svc-monitoring
run pvesh set /cluster/sdn

[ "$apply" = --apply ] || echo 'nothing was changed: run it with --apply' >&2

// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What no rule of nftables can see of a frame, judged at the guest's own port before the bridge has it (tcx, Linux 6.6).
//
// A guest's network card may leave work to the node: to fill in a checksum, to cut a large packet into segments. It says where,
// by an offset that is no part of the frame. The node does it as late as it can, mostly on the way out, behind every filter.
// An offset that points at the source address instead of a checksum changes that address when nobody looks any more. So the
// place has to be the checksum of a transport header of this very frame.
//
// And frames to the bridge's own groups (01:80:c2:00:00:00 to 0f: spanning tree, LACP, LLDP) reach the node's own listeners
// for them without passing any hook of a bridge.
//
// Both programs say TCX_NEXT to all else: programs of others and Proxmox VE's rate limit come after.

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

// Of the kernel's `struct sk_buff` (include/linux/skbuff.h) what is asked for here; where it lies, the loader works out.
struct sk_buff {
	unsigned char *head, *data;
	__u8 ip_summed : 2;
	__u16 csum_start, csum_offset;
} __attribute__((preserve_access_index));

// The frame as the kernel has it, not as programs usually see it. Linux 6.2 (kernel/bpf/helpers.c); wants CAP_PERFMON.
extern void *bpf_cast_to_kern_ctx(void *context) __ksym;

// include/uapi/linux/bpf.h, from Linux 6.6 on: the next program or the queueing discipline decides; nobody sees it any more.
#define TCX_NEXT (-1)
#define TCX_DROP 2

// include/linux/skbuff.h: the checksum is still to be filled in.
#define CHECKSUM_PARTIAL 3

// IEEE 802.1Q, 802.1ad, and the one that came before it.
#define VLAN 0x8100
#define SERVICE_VLAN 0x88a8
#define OLD_SERVICE_VLAN 0x9100

#define MAX_TAGS 4
#define MAX_EXTENSION_HEADERS 24

// Why a frame is dropped; src/system/port_programs has the same numbers.
enum reason {
	OFFLOAD = 1,
	LINK_LOCAL_GROUP = 2,
};

// Port 0 counts for all of them, so that nothing is forgotten when a port goes.
struct count_of {
	__u32 port;
	__u32 reason;
};

struct counted {
	__u64 packets;
	__u64 bytes;
	// When the last one was: nanoseconds since the boot.
	__u64 last;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct count_of);
	__type(value, struct counted);
} drops SEC(".maps");

static void count(struct __sk_buff *frame, __u32 port, __u32 reason)
{
	struct count_of key = { port, reason };
	struct counted none = {}, *number = bpf_map_lookup_elem(&drops, &key);

	if (!number) {
		bpf_map_update_elem(&drops, &key, &none, BPF_NOEXIST);
		number = bpf_map_lookup_elem(&drops, &key);
	}
	if (!number)
		return;
	__sync_fetch_and_add(&number->packets, 1);
	__sync_fetch_and_add(&number->bytes, frame->len);
	number->last = bpf_ktime_get_boot_ns();
}

static int drop(struct __sk_buff *frame, __u32 reason)
{
	count(frame, frame->ifindex, reason);
	count(frame, 0, reason);
	return TCX_DROP;
}

// Where the transport header begins, and what it is (IANA protocol numbers). 0: there is none, or none that can be told.
struct transport {
	__u32 at;
	__u8 protocol;
};

static bool of_ipv4(struct __sk_buff *frame, __u32 at, struct transport *found)
{
	struct {
		__u8 version_length, service;
		__be16 length, id, fragment;
		__u8 hops, protocol;
	} header;

	if (bpf_skb_load_bytes(frame, at, &header, sizeof(header)))
		return false;
	// Only the first fragment has a transport header.
	if (header.version_length >> 4 != 4 || (header.version_length & 15) < 5 || header.fragment & bpf_htons(0x1fff))
		return false;
	found->at = at + (header.version_length & 15) * 4;
	found->protocol = header.protocol;
	return true;
}

static bool of_ipv6(struct __sk_buff *frame, __u32 at, struct transport *found)
{
	__u8 next;

	if (bpf_skb_load_bytes(frame, at + 6, &next, 1))
		return false;
	at += 40;
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		struct {
			__u8 next, length;
			__be16 fragment;
		} header;

		switch (next) {
		case 0: // hop-by-hop options
		case 43: // routing
		case 60: // destination options
		case 135: // mobility
			if (bpf_skb_load_bytes(frame, at, &header, sizeof(header)))
				return false;
			at += header.length * 8 + 8;
			break;
		case 44: // fragment
			if (bpf_skb_load_bytes(frame, at, &header, sizeof(header)) || header.fragment & bpf_htons(0xfff8))
				return false;
			at += 8;
			break;
		default:
			found->at = at;
			found->protocol = next;
			return true;
		}
		next = header.next;
	}
	return false;
}

static bool find_transport(struct __sk_buff *frame, struct transport *found)
{
	__u32 at = 12;
	__be16 type;

	for (int i = 0; i <= MAX_TAGS; i++) {
		if (bpf_skb_load_bytes(frame, at, &type, sizeof(type)))
			return false;
		at += 2;
		switch (bpf_ntohs(type)) {
		case 0x0800:
			return of_ipv4(frame, at, found);
		case 0x86dd:
			return of_ipv6(frame, at, found);
		case VLAN:
		case SERVICE_VLAN:
		case OLD_SERVICE_VLAN:
			at += 2;
			break;
		default:
			return false;
		}
	}
	return false;
}

// What a tunnel's header takes at least before the packet inside: RFC 768, RFC 2784, RFC 2003, RFC 2473. 0: no tunnel.
static __u32 tunnel(__u8 protocol)
{
	switch (protocol) {
	case 17: // UDP, as for VXLAN or Geneve
		return 8;
	case 47: // GRE
		return 4;
	case 4: // IPv4 in IP
		return 20;
	case 41: // IPv6 in IP
		return 40;
	default:
		return 0;
	}
}

// Where in its header a protocol has its checksum: RFC 9293, 768, 3828, 4443, 9260. 0: it has none that is left to others.
static __u32 checksum_of(__u8 protocol)
{
	switch (protocol) {
	case 6: // TCP
		return 16;
	case 17: // UDP
	case 136: // UDP-Lite
		return 6;
	case 58: // ICMPv6
		return 2;
	case 132: // SCTP
		return 8;
	default:
		return 0;
	}
}

// Whether the node may do what the frame leaves to it.
static bool is_honest(struct __sk_buff *frame)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(frame);
	bool partial = BPF_CORE_READ_BITFIELD(kernel, ip_summed) == CHECKSUM_PARTIAL;
	struct transport own;
	__u64 headroom;
	__u32 start, inside;

	if (!partial && !frame->gso_size)
		return true;
	if (!find_transport(frame, &own))
		return false;
	if (frame->gso_size && own.protocol != 6 && own.protocol != 132 && !tunnel(own.protocol))
		return false;
	if (!partial)
		return true;
	headroom = (__u64)kernel->data - (__u64)kernel->head;
	// In 32 bits the verifier would not follow it.
	asm volatile("" : "+r"(headroom));
	if (kernel->csum_start < headroom)
		return false;
	start = kernel->csum_start - (__u32)headroom;
	if (start == own.at)
		return kernel->csum_offset == checksum_of(own.protocol) && kernel->csum_offset;
	// A guest that makes tunnels leaves the checksum of the packet inside to the node: that of TCP or UDP.
	inside = tunnel(own.protocol);
	return inside && start >= own.at + inside && (kernel->csum_offset == 16 || kernel->csum_offset == 6);
}

// At ports without bound addresses. Its name is how it is recognised (bpftool, src/system/port_programs).
SEC("tc")
int ppip_other(struct __sk_buff *frame)
{
	if (!is_honest(frame))
		return drop(frame, OFFLOAD);
	return TCX_NEXT;
}

// At ports with bound addresses.
SEC("tc")
int ppip_bound(struct __sk_buff *frame)
{
	__u8 to[6] = {};

	if (bpf_skb_load_bytes(frame, 0, to, sizeof(to)))
		return TCX_NEXT;
	if (to[0] == 0x01 && to[1] == 0x80 && to[2] == 0xc2 && to[3] == 0 && to[4] == 0 && to[5] < 16)
		return drop(frame, LINK_LOCAL_GROUP);
	if (!is_honest(frame))
		return drop(frame, OFFLOAD);
	return TCX_NEXT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";

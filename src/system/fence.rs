//! A fence around the guests while the filter is missing: nothing comes out of a guest's port as long as it stands.
//!
//! It is a table of its own, made by netlink alone, because that takes a millisecond where `nft` takes twenty. It
//! belongs to the socket that made it (`NFT_TABLE_F_OWNER`, Linux 5.12): nobody else can remove it, also not by
//! `flush ruleset`, and it goes with its owner, so that a guard that dies does not leave guests cut off.
//!
//! A second chain that stands all the time would leave no gap at all, but it has to know which frames the filter has
//! seen: a mark on each of them and the look at it cost 4 % of the smallest frames. Isolating the ports, or dropping in
//! tc, would have to be taken away and put back for each port, and forgets the ports that come meanwhile.
//!
//! Source of the message layouts: Linux `include/uapi/linux/netfilter/nf_tables.h`.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use super::netlink::flags::{ACKNOWLEDGE, CREATE, REQUEST};
use super::netlink::{Builder, NetlinkError, Socket};
use super::nftables::{BATCH, BATCH_BEGIN, BATCH_END, SUBSYSTEM, header};
use crate::ruleset::{TABLE, Table};

const NEW_TABLE: u16 = SUBSYSTEM;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const APPEND: u16 = 0x800;

const CHAIN: &str = "guests";

/// How the names of guests' ports begin; a number follows that begins with one of [`DIGITS`].
const STEMS: [&str; 4] = ["tap", "veth", "fwpr", "fwln"];
const DIGITS: std::ops::RangeInclusive<u8> = b'1'..=b'9';

const BRIDGE: [u8; 4] = header(Table::Bridge);

/// Ahead of every other chain.
const PRIORITY: i32 = -400;

/// A fence that stands. It falls with this value.
#[derive(Debug)]
pub struct Fence {
    _owner: Socket,
}

impl Fence {
    /// Puts it up, in the network namespace of the calling thread.
    pub fn raise() -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        let mut batch = Builder::default();
        batch.message(BATCH_BEGIN, REQUEST, 1, &BATCH);
        put_table(&mut batch);
        put_chain(&mut batch);
        for stem in STEMS {
            for digit in DIGITS {
                put_rule(&mut batch, &[stem.as_bytes(), &[digit]].concat());
            }
        }
        batch.message(BATCH_END, REQUEST | ACKNOWLEDGE, 2, &BATCH);
        socket.send(batch.bytes())?;
        while let Some(frames) = socket.receive(MsgFlags::MSG_DONTWAIT)? {
            if let Some(errno) = frames.iter().filter_map(super::netlink::Frame::error).find(|errno| *errno != 0) {
                return Err(NetlinkError::new("fence the guests in", Errno::from_raw(errno)));
            }
        }
        Ok(Self { _owner: socket })
    }
}

fn name() -> String {
    format!("{TABLE}-fence")
}

fn put_table(batch: &mut Builder) {
    const NAME: u16 = 1;
    const FLAGS: u16 = 2;
    const OWNER: u32 = 2;
    batch.message(NEW_TABLE, REQUEST | CREATE, 3, &BRIDGE).string(NAME, &name());
    batch.attribute(FLAGS, &OWNER.to_be_bytes()).end_message();
}

fn put_chain(batch: &mut Builder) {
    const IN_TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    const TYPE: u16 = 7;
    /// `NF_BR_PRE_ROUTING`.
    const PREROUTING: u32 = 0;
    batch.message(NEW_CHAIN, REQUEST | CREATE, 4, &BRIDGE).string(IN_TABLE, &name()).string(NAME, CHAIN);
    let hook = batch.begin(HOOK);
    batch.attribute(HOOK_NUMBER, &PREROUTING.to_be_bytes()).attribute(HOOK_PRIORITY, &PRIORITY.to_be_bytes());
    batch.end(hook);
    batch.string(TYPE, "filter").end_message();
}

/// `iifname PREFIX* drop`.
fn put_rule(batch: &mut Builder, prefix: &[u8]) {
    const IN_TABLE: u16 = 1;
    const IN_CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    const INTERFACE_NAME: u32 = 6;
    const EQUAL: u32 = 0;
    const REGISTER: u32 = 1;
    const VERDICT_REGISTER: u32 = 0;
    const DATA_VALUE: u16 = 1;
    const DATA_VERDICT: u16 = 2;
    const VERDICT_CODE: u16 = 1;
    const DROP: u32 = 0;
    batch.message(NEW_RULE, REQUEST | CREATE | APPEND, 5, &BRIDGE).string(IN_TABLE, &name()).string(IN_CHAIN, CHAIN);
    let list = batch.begin(EXPRESSIONS);
    expression(batch, "meta", |batch| {
        batch.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &INTERFACE_NAME.to_be_bytes());
    });
    expression(batch, "cmp", |batch| {
        batch.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &EQUAL.to_be_bytes());
        let data = batch.begin(3);
        batch.attribute(DATA_VALUE, prefix);
        batch.end(data);
    });
    expression(batch, "immediate", |batch| {
        batch.attribute(1, &VERDICT_REGISTER.to_be_bytes());
        let data = batch.begin(2);
        let verdict = batch.begin(DATA_VERDICT);
        batch.attribute(VERDICT_CODE, &DROP.to_be_bytes());
        batch.end(verdict);
        batch.end(data);
    });
    batch.end(list);
    batch.end_message();
}

/// An element of a rule's list: its kind, and what it does with which register.
fn expression(batch: &mut Builder, kind: &str, fill: impl FnOnce(&mut Builder)) {
    const LIST_ITEM: u16 = 1;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    let item = batch.begin(LIST_ITEM);
    batch.string(NAME, kind);
    let data = batch.begin(DATA);
    fill(batch);
    batch.end(data);
    batch.end(item);
}

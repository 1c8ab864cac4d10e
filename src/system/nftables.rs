//! The filter in the kernel: text through `nft`, elements and read-back over netlink.
//!
//! `nft list` needs seconds and 100 MB where a dump over netlink needs 50 ms, and loading elements as text is four
//! times as slow; so the tool is used for what only it can do, compiling rules.
//!
//! Source of the message layouts: Linux `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, SockProtocol};

use super::netlink::flags::{ACKNOWLEDGE, CREATE, DUMP, INTERRUPTED, REQUEST};
use super::netlink::{Builder, NetlinkError, Socket, attribute, attributes, text};
use crate::host::command::{self, CommandError};
use crate::plan::{Event, Rules};
use crate::ruleset::{Element, SetId, Storage, TABLE, Table};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 10;
const NEW_SET_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_SET_ELEMENT: u16 = SUBSYSTEM | 13;
const DELETE_SET_ELEMENT: u16 = SUBSYSTEM | 14;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
pub(super) const BATCH_BEGIN: u16 = 16;
pub(super) const BATCH_END: u16 = 17;

/// `struct nfgenmsg`: family, version 0, resource 0.
pub(super) const fn header(table: Table) -> [u8; 4] {
    match table {
        Table::Bridge => [7, 0, 0, 0],
        Table::Inet => [1, 0, 0, 0],
    }
}
/// The same for a batch: resource is the subsystem, in network order.
pub(super) const BATCH: [u8; 4] = [0, 0, 0, 10];

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
const INTERVAL_END: u32 = 1;
/// The table of another release while this one's is being built.
const COPY: &str = "pve-public-ip-before";
/// `NFT_SET_EVAL`.
const FILLED_BY_RULES: u32 = 0x20;

/// How long a dump is repeated because something changed meanwhile.
const RETRY_LIMIT: Duration = Duration::from_secs(5);

/// A nested attribute's length has 16 bits; stay well below.
const LIST_LIMIT: usize = 60_000;

/// Why the filter could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// `nft` is missing or refused the text.
    #[error("cannot load the {what} of {table}")]
    Nft {
        /// Which table.
        table: Table,
        /// Sets, rules, or a copy of both.
        what: &'static str,
        /// What `nft` said.
        source: CommandError,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A throwaway namespace for compiling the rules could not be had.
    #[error("cannot make a network namespace to compile the rules in")]
    Namespace(#[source] std::io::Error),
    /// What the kernel shows after loading is not what this release's text compiles to.
    #[error("the rules were loaded, but the kernel shows others")]
    NotTaken,
    /// A set has no room for more.
    #[error("the set `{set}` of {table} is full: it holds {size} elements")]
    Full {
        /// Which table.
        table: Table,
        /// Which set.
        set: &'static str,
        /// How many it holds, by the text that declares it.
        size: String,
    },
    /// The answer does not parse.
    #[error("the kernel's answer about set `{0}` is not understood")]
    Answer(&'static str),
}

/// The rules as they should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reference {
    /// The nflog group to which dropped frames are sent.
    pub log_group: Option<u16>,
    /// What this kernel and `nft` make of the text of each table.
    pub fingerprints: [u64; 2],
}

impl Reference {
    /// That of one table.
    pub fn fingerprint(&self, table: Table) -> u64 {
        let [bridge, inet] = self.fingerprints;
        match table {
            Table::Bridge => bridge,
            Table::Inet => inet,
        }
    }
}

/// Why elements could not be changed, and in which set.
fn refused(set: Option<SetId>, errno: Errno, count: usize) -> FilterError {
    match set {
        Some(set) if errno == Errno::ENFILE => FilterError::Full {
            table: set.table(),
            set: set.name(),
            size: set.capacity().map_or_else(|| "no more".to_owned(), |size| size.to_string()),
        },
        set => {
            let set = set.map(|set| format!(", at the set `{}`", set.name())).unwrap_or_default();
            NetlinkError::new(format!("change {count} elements of the tables {TABLE}{set}"), errno).into()
        }
    }
}

/// An open connection to nf_tables.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    /// Connects, in the caller's network namespace.
    pub fn open() -> Result<Self, FilterError> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkNetFilter)? })
    }

    /// Loads the declarations of the sets. A table in which a set of that name is declared otherwise (by another release)
    /// is replaced by an empty one: nothing can be added to it, and its rules are not ours.
    ///
    /// A copy of it stays in force meanwhile, under another name: [`Self::load_rules`] removes it.
    pub fn declare_sets(&self, table: Table) -> Result<(), FilterError> {
        match nft(table, table.sets(), "sets") {
            Err(FilterError::Nft { source, .. }) if is_plain_no(&source) => {}
            result => return result,
        }
        if let Err(error) = keep_copy(table) {
            log::warn!("{error}; until the new rules are loaded nothing is filtered");
        }
        nft(table, &format!("{table}\ndelete {table}\n{}", table.sets()), "sets")
    }

    /// Removes a table and what stands in for it.
    pub fn remove_table(&mut self, table: Table) -> Result<(), FilterError> {
        let family = table.family();
        let each = [TABLE, COPY].map(|name| format!("table {family} {name}\ndelete table {family} {name}\n"));
        nft(table, &each.concat(), "end")
    }

    /// Replaces the rules, and in the same transaction removes chains and sets that are not this release's, and the copy
    /// of the table that was in force before.
    pub fn load_rules(&mut self, table: Table, log_group: Option<u16>) -> Result<(), FilterError> {
        let family = table.family();
        let tables = self.dump(table, GET_TABLE, &[], "list the tables")?;
        let has_copy = tables.iter().any(|table| attribute(table, 1).is_some_and(|name| text(name) == COPY));
        let chains = self.dump(table, GET_CHAIN, &[], "list the chains")?;
        let ours = chains.iter().filter(|chain| attribute(chain, 1).is_some_and(|table| text(table) == TABLE));
        let chains: BTreeSet<String> =
            ours.filter_map(|chain| attribute(chain, 3)).map(|name| text(name).to_owned()).collect();
        let rules = table.rules(log_group);
        let mut script = format!("flush {table}\n");
        for (kind, found, declaring) in [("chain", chains, &*rules), ("set", self.declared_sets(table)?, table.sets())]
        {
            let start = format!("\t{kind} ");
            let declared: BTreeSet<&str> =
                declaring.lines().filter_map(|line| line.strip_prefix(&start)?.split(' ').next()).collect();
            for name in found.iter().filter(|name| !declared.contains(name.as_str())) {
                script += &format!("delete {kind} {family} {TABLE} {name}\n");
            }
        }
        if has_copy {
            script += &format!("delete table {family} {COPY}\n");
        }
        nft(table, &(script + &rules), "rules")
    }

    /// How much of the text is loaded; `reference` is the fingerprint that this release's text must have.
    pub fn observe_rules(&mut self, table: Table, reference: u64) -> Result<Rules, FilterError> {
        let declared = self.declared_sets(table)?;
        if SetId::ALL.iter().any(|set| set.table() == table && !declared.contains(set.name())) {
            return Ok(Rules::Absent);
        }
        if self.fingerprint(table, &declared)? == reference {
            return Ok(Rules::Loaded);
        }
        Ok(if are_compatible(table) { Rules::Different } else { Rules::Absent })
    }

    /// Whether neither this table nor a copy that stands in for it has rules: nothing is filtered by it.
    pub fn is_void(&mut self, table: Table) -> Result<bool, FilterError> {
        Ok(!self.has_rules(table, TABLE)? && !self.has_rules(table, COPY)?)
    }

    fn has_rules(&mut self, table: Table, name: &str) -> Result<bool, FilterError> {
        let rules = self.dump(table, GET_RULE, &[(LIST_TABLE, name)], "list the rules")?;
        Ok(rules.iter().any(|rule| attribute(rule, LIST_TABLE).is_some_and(|found| text(found) == name)))
    }

    /// Whether frames may pass that the rules would have dropped: the table has no rules, or others than accepted, and no
    /// copy of it stands in.
    pub fn is_open(&mut self, table: Table, accepted: &BTreeSet<u64>) -> Result<bool, FilterError> {
        if self.is_void(table)? {
            return Ok(true);
        }
        let declared = self.declared_sets(table)?;
        Ok(!accepted.contains(&self.fingerprint(table, &declared)?) && !self.has_rules(table, COPY)?)
    }

    /// Compiles this release's text in a throwaway network namespace and takes its fingerprint there.
    ///
    /// So the kernel's rules are compared with what this very kernel and `nft` make of the text, without a copy of
    /// bytecode in this program and without trusting what was loaded before.
    pub fn reference(log_group: Option<u16>) -> Result<Reference, FilterError> {
        let compile = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| FilterError::Namespace(errno.into()))?;
            let mut nftables = Self::open()?;
            let mut fingerprints = [0; 2];
            for (table, fingerprint) in Table::ALL.into_iter().zip(&mut fingerprints) {
                let loaded = nftables.declare_sets(table).and_then(|()| nftables.load_rules(table, log_group));
                match loaded {
                    // A kernel without this family protects bridges all the same; who needs the table hears why it fails.
                    Err(FilterError::Nft { table: Table::Inet, source, .. }) if is_plain_no(&source) => continue,
                    loaded => loaded?,
                }
                let declared = nftables.declared_sets(table)?;
                *fingerprint = nftables.fingerprint(table, &declared)?;
            }
            Ok(Reference { log_group, fingerprints })
        };
        // `unshare` moves only the calling thread; it ends with the namespace.
        std::thread::scope(|scope| scope.spawn(compile).join().unwrap_or(Err(FilterError::NotTaken)))
    }

    /// A hash of the text, by which a stored reference is known to be of this release.
    pub fn text_hash(log_group: Option<u16>) -> u64 {
        let mut hasher = DefaultHasher::new();
        Table::ALL.map(|table| (table.sets(), table.rules(log_group))).hash(&mut hasher);
        hasher.finish()
    }

    /// The number of the last transaction in this namespace, whoever made it.
    pub fn generation(&mut self) -> Result<u32, FilterError> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(GET_GENERATION, REQUEST | ACKNOWLEDGE, sequence, &[0; 4]);
        let frames = self.socket.request(builder.bytes(), sequence, "tell the number of the last transaction")?;
        let number = frames.first().and_then(|frame| generation_id(frame.payload.get(4..)?));
        number.ok_or(FilterError::Answer("generation"))
    }

    /// Reads the elements of all sets of a table.
    pub fn observe_elements(&mut self, table: Table) -> Result<BTreeSet<Element>, FilterError> {
        let mut elements = Vec::new();
        for set in SetId::ALL.iter().filter(|set| set.table() == table) {
            self.dump_set(*set, &mut elements)?;
        }
        Ok(elements.into_iter().collect())
    }

    /// Which of these elements the kernel has.
    pub fn find_elements(&mut self, wanted: &BTreeSet<Element>) -> Result<BTreeSet<Element>, FilterError> {
        let (trees, others): (Vec<_>, Vec<_>) =
            wanted.iter().partition(|element| element.set().storage() == Storage::Tree);
        let mut found = BTreeSet::new();
        // A range of a tree cannot be asked for by both ends; these sets are small.
        let mut dumped = Vec::new();
        for set in trees.iter().map(|element| element.set()).collect::<BTreeSet<_>>() {
            self.dump_set(set, &mut dumped)?;
        }
        found.extend(dumped.into_iter().filter(|element| wanted.contains(element)));

        let mut asked = BTreeMap::new();
        let mut builder = Builder::default();
        for element in others {
            let sequence = self.socket.next_sequence();
            asked.insert(sequence, element);
            begin_list(&mut builder, GET_SET_ELEMENT, REQUEST, sequence, element.set());
            let list = builder.begin(LIST_ELEMENTS);
            put_element(&mut builder, element);
            builder.end(list);
            builder.end_message();
        }
        if asked.is_empty() {
            return Ok(found);
        }
        self.socket.send(builder.bytes())?;
        // Each question has exactly one answer: the element, or ENOENT.
        while !asked.is_empty() {
            let frames = self.socket.receive(MsgFlags::empty())?;
            let frames = frames.ok_or_else(|| NetlinkError::late("look up elements of a set"))?;
            for frame in frames {
                let Some(element) = asked.remove(&frame.sequence) else { continue };
                match frame.error() {
                    Some(errno) if Errno::from_raw(errno) == Errno::ENOENT => {}
                    Some(errno) => {
                        let action = format!("look up {element}");
                        return Err(NetlinkError::new(action, Errno::from_raw(errno)).into());
                    }
                    None => {
                        found.insert(element.clone());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Changes elements in one transaction: all of it happens or nothing.
    pub fn change_elements(&mut self, add: &[Element], remove: &[Element]) -> Result<(), FilterError> {
        let mut builder = Builder::default();
        let first = self.socket.next_sequence();
        builder.message(BATCH_BEGIN, REQUEST, first, &BATCH);
        // Removals first: a range may grow over the one that it replaces. Packets see both or neither.
        let mut sets = self.put_lists(&mut builder, DELETE_SET_ELEMENT, 0, remove);
        sets.extend(self.put_lists(&mut builder, NEW_SET_ELEMENT, CREATE, add));
        let last = self.socket.next_sequence();
        builder.message(BATCH_END, REQUEST | ACKNOWLEDGE, last, &BATCH);
        self.socket.send(builder.bytes())?;
        // The kernel has worked through the batch when `send` returns: everything it says is there already.
        while let Some(frames) = self.socket.receive(MsgFlags::MSG_DONTWAIT)? {
            for frame in frames {
                let Some(errno) = frame.error().filter(|errno| *errno != 0) else { continue };
                let set = sets.get(&frame.sequence);
                // What an earlier transaction left unsaid is not about this one.
                if set.is_none() && frame.sequence != first && frame.sequence != last {
                    continue;
                }
                return Err(refused(set.copied(), Errno::from_raw(errno), add.len() + remove.len()));
            }
        }
        Ok(())
    }

    /// Returns which message is about which set.
    fn put_lists(
        &mut self,
        builder: &mut Builder,
        kind: u16,
        flags: u16,
        elements: &[Element],
    ) -> BTreeMap<u32, SetId> {
        let mut rest = elements;
        let mut sets = BTreeMap::new();
        while let Some(first) = rest.first() {
            let set = first.set();
            let sequence = self.socket.next_sequence();
            sets.insert(sequence, set);
            begin_list(builder, kind, REQUEST | flags, sequence, set);
            let list = builder.begin(LIST_ELEMENTS);
            while let Some(element) = rest.first() {
                if element.set() != set || builder.length_since(list) > LIST_LIMIT {
                    break;
                }
                put_element(builder, element);
                rest = &rest[1..];
            }
            builder.end(list);
            builder.end_message();
        }
        sets
    }

    fn dump_set(&mut self, set: SetId, elements: &mut Vec<Element>) -> Result<(), FilterError> {
        let raw = self.dump_raw(set.table(), set.name())?;
        let mut tree = Vec::new();
        for item in raw {
            let value = |kind| attribute(&item, kind).and_then(|data| attribute(data, DATA_VALUE));
            let key = value(ELEMENT_KEY).ok_or(FilterError::Answer(set.name()))?;
            let flags = attribute(&item, ELEMENT_FLAGS).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            let is_end = flags.is_some_and(|bytes| u32::from_be_bytes(bytes) & INTERVAL_END != 0);
            match set.storage() {
                Storage::Hash => elements.push(Element::raw(set, key, None)),
                Storage::Pipapo => {
                    // A concatenation with equal ends has no second key.
                    let end = value(ELEMENT_KEY_END).unwrap_or(key);
                    elements.push(Element::raw(set, key, Some(end)));
                }
                Storage::Tree => tree.push((key.to_vec(), is_end)),
            }
        }
        elements.extend(ranges(set, tree));
        Ok(())
    }

    /// Elements of a set as attributes; none if the set does not exist.
    pub(super) fn dump_raw(&mut self, table: Table, set: &str) -> Result<Vec<Vec<u8>>, FilterError> {
        self.dump_elements(table, TABLE, set)
    }

    /// The same of a table with this name.
    pub(super) fn dump_elements(&mut self, table: Table, name: &str, set: &str) -> Result<Vec<Vec<u8>>, FilterError> {
        let mut items = Vec::new();
        let filter = [(LIST_TABLE, name), (LIST_SET, set)];
        let frames = self.dump(table, GET_SET_ELEMENT, &filter, "list the elements of a set")?;
        for frame in frames {
            let list = attribute(&frame, LIST_ELEMENTS).unwrap_or_default();
            items.extend(attributes(list).map(|(_, item)| item.to_vec()));
        }
        Ok(items)
    }

    fn declared_sets(&mut self, table: Table) -> Result<BTreeSet<String>, FilterError> {
        const SET_TABLE: u16 = 1;
        const SET_NAME: u16 = 2;
        let frames = self.dump(table, GET_SET, &[(SET_TABLE, TABLE)], "list the sets")?;
        Ok(frames.iter().filter_map(|frame| attribute(frame, SET_NAME)).map(|name| text(name).to_owned()).collect())
    }

    /// A hash of everything in a table of ours that decides on frames, apart from the elements of bindings: the table's
    /// flags, the chains with their hooks, the rules in order, the constant sets and the types of all sets.
    fn fingerprint(&mut self, table: Table, declared: &BTreeSet<String>) -> Result<u64, FilterError> {
        const NAME_OR_TABLE: u16 = 1;
        const TABLE_FLAGS: u16 = 2;
        const CHAIN_NAME: u16 = 3;
        const CHAIN_PARTS: [u16; 5] = [3, 4, 5, 7, 10]; // name, hook, policy, type, flags
        const RULE_CHAIN: u16 = 2;
        const RULE_EXPRESSIONS: u16 = 4;
        const SET_PARTS: [u16; 6] = [2, 3, 4, 5, 6, 7]; // name, flags, key and data type and length
        let mut hasher = DefaultHasher::new();
        let ours = |frame: &&Vec<u8>| attribute(frame, NAME_OR_TABLE).is_some_and(|name| text(name) == TABLE);

        let tables = self.dump(table, GET_TABLE, &[], "list the tables")?;
        tables.iter().filter(ours).for_each(|frame| attribute(frame, TABLE_FLAGS).hash(&mut hasher));

        let chains = self.dump(table, GET_CHAIN, &[], "list the chains")?;
        let mut chains: Vec<_> = chains.iter().filter(ours).collect();
        chains.sort_by_key(|frame| attribute(frame, CHAIN_NAME).map(<[u8]>::to_vec));
        for chain in chains {
            CHAIN_PARTS.map(|part| attribute(chain, part)).hash(&mut hasher);
        }

        let rules = self.dump(table, GET_RULE, &[(NAME_OR_TABLE, TABLE)], "list the rules")?;
        let mut by_chain: BTreeMap<Vec<u8>, Vec<&[u8]>> = BTreeMap::new();
        for rule in rules.iter().filter(ours) {
            let chain = attribute(rule, RULE_CHAIN).unwrap_or_default().to_vec();
            by_chain.entry(chain).or_default().push(attribute(rule, RULE_EXPRESSIONS).unwrap_or_default());
        }
        by_chain.hash(&mut hasher);

        let sets = self.dump(table, GET_SET, &[(NAME_OR_TABLE, TABLE)], "list the sets")?;
        let mut parts: Vec<_> = sets.iter().map(|set| SET_PARTS.map(|part| attribute(set, part))).collect();
        parts.sort_unstable();
        parts.hash(&mut hasher);
        // What the rules themselves fill decides on nothing.
        let is_dynamic = |set: &[u8]| {
            let flags = attribute(set, 3).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            flags.is_some_and(|bytes| u32::from_be_bytes(bytes) & FILLED_BY_RULES != 0)
        };
        let constant = sets.iter().filter(|set| !is_dynamic(set)).filter_map(|set| attribute(set, 2));
        let constant: BTreeSet<&str> =
            constant.map(text).filter(|name| declared.contains(*name) && SetId::by_name(name).is_none()).collect();
        for constant in constant {
            let mut keys = self.dump_raw(table, constant)?;
            keys.sort_unstable();
            (constant, keys).hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    /// A whole dump of a table's family as attributes behind the fixed header.
    pub(super) fn dump(
        &mut self,
        table: Table,
        kind: u16,
        filter: &[(u16, &str)],
        action: &str,
    ) -> Result<Vec<Vec<u8>>, FilterError> {
        let whole = self.dump_of(header(table), kind, filter, action)?;
        Ok(whole.into_iter().map(|payload| payload.get(4..).unwrap_or_default().to_vec()).collect())
    }

    /// A whole dump with the fixed headers; repeated if something changed meanwhile.
    pub(super) fn dump_of(
        &mut self,
        header: [u8; 4],
        kind: u16,
        filter: &[(u16, &str)],
        action: &str,
    ) -> Result<Vec<Vec<u8>>, FilterError> {
        // Somebody who changes nf_tables all the time can interrupt every dump.
        let last = Instant::now() + RETRY_LIMIT;
        loop {
            if Instant::now() > last {
                return Err(NetlinkError::late(action).into());
            }
            let sequence = self.socket.next_sequence();
            let mut builder = Builder::default();
            builder.message(kind, REQUEST | DUMP, sequence, &header);
            for (attribute, value) in filter {
                builder.string(*attribute, value);
            }
            builder.end_message();
            let frames = match self.socket.request(builder.bytes(), sequence, action) {
                Ok(frames) => frames,
                Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(Vec::new()),
                Err(error) if error.errno() == Some(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if frames.iter().all(|frame| frame.flags & INTERRUPTED == 0) {
                return Ok(frames.into_iter().map(|frame| frame.payload).collect());
            }
        }
    }
}

const GENERATION_ID: u16 = 1;
const GENERATION_PROGRAM: u16 = 3;

fn generation_id(attributes: &[u8]) -> Option<u32> {
    attribute(attributes, GENERATION_ID)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`, in which iptables-nft has its tables.
const IPTABLES_FAMILIES: [u8; 2] = [2, 10];

/// Hears of transactions that touch our tables.
#[derive(Debug)]
pub(super) struct Transactions {
    pub(super) socket: Socket,
    touched: bool,
    touched_chains: bool,
}

impl Transactions {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        /// Mask of `NFNLGRP_NFTABLES`. Source: Linux `include/uapi/linux/netfilter/nfnetlink.h`.
        const GROUP: u32 = 1 << 6;
        Ok(Self {
            socket: Socket::listen(SockProtocol::NetlinkNetFilter, GROUP)?,
            touched: false,
            touched_chains: false,
        })
    }

    /// What is waiting. A transaction is told change by change, and ends with its number.
    pub(super) fn drain(&mut self, events: &mut Vec<Event>) -> Result<(), NetlinkError> {
        loop {
            let frames = match self.socket.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(Some(frames)) => frames,
                Ok(None) => return Ok(()),
                Err(error) if error.errno() == Some(Errno::ENOBUFS) => {
                    events.push(Event::Lost);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for frame in frames {
                let Some((family, rest)) = frame.payload.split_at_checked(4) else { continue };
                // The first attribute of every object is the name of its table.
                if frame.kind != NEW_GENERATION {
                    let is_family = Table::ALL.iter().any(|table| header(*table)[0] == family[0]);
                    let table = attribute(rest, 1).map(text);
                    self.touched |= is_family && table == Some(TABLE);
                    self.touched_chains |=
                        IPTABLES_FAMILIES.contains(&family[0]) && matches!(table, Some("filter" | "raw"));
                    continue;
                }
                if std::mem::take(&mut self.touched_chains) {
                    events.push(Event::Chains);
                }
                if std::mem::take(&mut self.touched) {
                    let by = attribute(rest, GENERATION_PROGRAM).map(text).unwrap_or_default().to_owned();
                    events.push(generation_id(rest).map_or(Event::Lost, |generation| Event::Filter { generation, by }));
                }
            }
        }
    }
}

/// Whether the kernel would take the declarations of this table beside what it has.
fn are_compatible(table: Table) -> bool {
    !command::run("nft", &["-c", "-f", "-"], table.sets().as_bytes()).is_err_and(|error| is_plain_no(&error))
}

/// Whether `nft` refused. If it cannot run or dies, the call that follows says so, and nothing is replaced for it.
fn is_plain_no(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed { status, .. } if status.code() == Some(1))
}

/// Loads what is in force under another name, beside it: a frame then passes only if both let it.
fn keep_copy(table: Table) -> Result<(), FilterError> {
    let failed = |source| FilterError::Nft { table, what: "copy", source };
    let family = table.family();
    let listing = command::run("nft", &["list", "table", family, TABLE], b"").map_err(failed)?;
    let listing = String::from_utf8_lossy(&listing);
    let copy = listing.replacen(&format!("{table} {{"), &format!("table {family} {COPY} {{"), 1);
    nft(table, &format!("table {family} {COPY}\ndelete table {family} {COPY}\n{copy}"), "copy")
}

fn nft(table: Table, text: &str, what: &'static str) -> Result<(), FilterError> {
    let failed = |source| FilterError::Nft { table, what, source };
    command::run("nft", &["-f", "-"], text.as_bytes()).map(drop).map_err(failed)
}

fn begin_list(builder: &mut Builder, kind: u16, flags: u16, sequence: u32, set: SetId) {
    builder.message(kind, flags, sequence, &header(set.table())).string(LIST_TABLE, TABLE).string(LIST_SET, set.name());
}

/// One member as list items: a range in a tree is two of them.
fn put_element(builder: &mut Builder, element: &Element) {
    let (storage, last) = (element.set().storage(), element.last());
    put_item(builder, element.first(), last.filter(|_| storage == Storage::Pipapo), 0);
    if storage == Storage::Tree {
        // A range up to the highest key has no end.
        if let Some(after) = last.and_then(successor) {
            put_item(builder, &after, None, INTERVAL_END);
        }
    }
}

fn put_item(builder: &mut Builder, key: &[u8], key_end: Option<&[u8]>, flags: u32) {
    let item = builder.begin(LIST_ITEM);
    if flags != 0 {
        builder.attribute(ELEMENT_FLAGS, &flags.to_be_bytes());
    }
    for (kind, key) in [(ELEMENT_KEY, Some(key)), (ELEMENT_KEY_END, key_end)] {
        if let Some(key) = key {
            let data = builder.begin(kind);
            builder.attribute(DATA_VALUE, key);
            builder.end(data);
        }
    }
    builder.end(item);
}

/// The next key in byte order; `None` after the last one.
fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// The key before in byte order.
fn predecessor(key: &[u8]) -> Vec<u8> {
    let mut previous = key.to_vec();
    for byte in previous.iter_mut().rev() {
        let (difference, borrow) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrow {
            break;
        }
    }
    previous
}

/// Pairs starts and ends of a tree's elements.
fn ranges(set: SetId, mut keys: Vec<(Vec<u8>, bool)>) -> Vec<Element> {
    // At one key the end of the range before comes first. A leading end is what nft writes for "nothing below".
    keys.sort_by(|(a, a_end), (b, b_end)| a.cmp(b).then(b_end.cmp(a_end)));
    let mut ranges = Vec::new();
    let mut start: Option<Vec<u8>> = None;
    for (key, is_end) in keys {
        if let Some(first) = start.take() {
            ranges.push(Element::raw(set, &first, Some(&predecessor(&key))));
        }
        if !is_end {
            start = Some(key);
        }
    }
    if let Some(first) = start {
        ranges.push(Element::raw(set, &first, Some(&vec![0xff; first.len()])));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_survive_the_tree() {
        let key = |last: u8| vec![203, 0, 113, last];
        let found = ranges(
            SetId::ReservedIp4,
            vec![
                (key(8), true),
                (key(4), false),
                (vec![0; 4], true),
                (key(8), false),
                (key(16), true),
                (vec![255, 0, 0, 0], false),
            ],
        );
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "reserved_ip4 { 203.0.113.4-203.0.113.7 }",
                "reserved_ip4 { 203.0.113.8-203.0.113.15 }",
                "reserved_ip4 { 255.0.0.0-255.255.255.255 }",
            ]
        );
        assert_eq!(successor(&[0, 255]), Some(vec![1, 0]));
        assert_eq!(successor(&[255, 255]), None);
    }
}

//! `audit`: what was changed, and who held an address when.

use serde_json::{Value, json};

use super::Audit;
use super::answers::Audited;
use super::output::{Output, table};
use crate::audit::{Entry, Holder, Query, holders};
use crate::model::Moment;
use crate::model::text::escaped;
use crate::reconcile::Node;
use crate::store::journal::now;

pub(super) fn audit(node: &Node, command: &Audit) -> Output {
    let [since, until, at] = [command.since, command.until, command.at].map(|span| span.map(|span| span.range(now())));
    let query = Query {
        vmid: command.vmid,
        address: command.address,
        pool: command.pool.clone(),
        since: since.map(|(from, _)| from),
        until: until.map(|(_, to)| to),
    };
    let limit = command.last.unwrap_or(usize::MAX);
    let journal = &node.store.journal;
    let (found, history) = if command.address.is_some() {
        // Who held an address then is not told by the entries of that time alone.
        let mut found = journal.search(&Query { address: command.address, ..Query::default() }, usize::MAX);
        let history = holders(&found.entries);
        found.entries = query.narrowed(found.entries, limit);
        (found, history)
    } else {
        (journal.search(&query, limit), Vec::new())
    };
    let mut data = Audited {
        unreadable: found.unreadable,
        not_searched: found.not_searched.clone(),
        begins: found.begins,
        entries: None,
        holders: None,
    };
    let mut text = match (command.address, at) {
        (Some(address), Some(span)) => {
            let then: Vec<Holder> = history.into_iter().filter(|holder| holder.is_of(span)).collect();
            let text = holders_then(&address.to_string(), &then, span, found.begins);
            data.holders = Some(then);
            text
        }
        (address, _) => {
            let text = holders_table(&history) + &entries_table(&found.entries);
            data.entries = Some(found.entries);
            data.holders = address.map(|_| history);
            text
        }
    };
    if found.unreadable > 0 {
        text += &format!("note: lines of the log that cannot be read: {}\n", found.unreadable);
    }
    text.extend(found.not_searched.iter().map(|line| format!("note: {line}\n")));
    // Half an answer is not one.
    Output::new(text, json!(data)).with_code(u8::from(!found.not_searched.is_empty()))
}

fn holders_then(address: &str, then: &[Holder], (from, to): (Moment, Moment), begins: Option<Moment>) -> String {
    let at = if to == from.next() { from.to_second() } else { format!("{} to {}", from.to_second(), to.to_second()) };
    let mut text = String::new();
    if then.is_empty() {
        text = match begins {
            Some(begins) if begins <= from => format!("{at}: nobody held {address}\n"),
            Some(begins) => {
                format!("{at}: nobody is known to have held {address}; the log begins {}\n", begins.to_second())
            }
            None => format!("{at}: nobody is known to have held {address}; the log is empty\n"),
        };
    }
    for holder in then {
        let mac = holder.mac.map(|mac| format!(" ({mac})")).unwrap_or_default();
        text += &format!("{at}: {} was held by guest {} {}{mac}", holder.address, holder.vmid, holder.interface);
        text.extend(holder.pool.iter().map(|pool| format!(", pool {pool}")));
        text.extend(holder.organization.iter().map(|name| format!(", organization {}", escaped(name))));
        text += &format!("\n  from {} to {}\n", began(holder), ended(holder));
    }
    text
}

fn began(holder: &Holder) -> String {
    holder.from.map_or_else(|| "before the log begins".to_owned(), Moment::to_second)
}

fn ended(holder: &Holder) -> String {
    match holder.until {
        None => "now".to_owned(),
        Some(until) if holder.until_at_latest => format!("{} at the latest", until.to_second()),
        Some(until) => until.to_second(),
    }
}

fn holders_table(history: &[Holder]) -> String {
    if history.is_empty() {
        return String::new();
    }
    let row = |holder: &Holder| {
        vec![
            holder.address.to_string(),
            format!("{} {}", holder.vmid, holder.interface),
            holder.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            holder.organization.clone().unwrap_or_default(),
            began(holder),
            ended(holder),
        ]
    };
    let rows: Vec<Vec<String>> = history.iter().map(row).collect();
    table(&["address", "held by", "mac", "organization", "from", "to"], &rows)
}

fn entries_table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no entries\n".to_owned();
    }
    let row = |entry: &Entry| {
        let change = &entry.change;
        let guest = change.vmid.map(|vmid| {
            let nic = change.interface.map(|nic| format!(" {nic}")).unwrap_or_default();
            format!("{vmid}{nic}")
        });
        let by = match &entry.author.who {
            Some(who) => who.to_string(),
            None if entry.found => "found".to_owned(),
            None => String::new(),
        };
        vec![
            entry.time.to_second(),
            change.event.to_string(),
            guest.unwrap_or_default(),
            change.address.map(|address| address.to_string()).unwrap_or_default(),
            by,
            details(entry),
        ]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    table(&["time", "what", "guest", "address", "by", "details"], &rows)
}

fn details(entry: &Entry) -> String {
    let change = &entry.change;
    let mut words: Vec<String> = change.text.clone().into_iter().collect();
    words.extend(change.pool.as_ref().map(|pool| format!("pool {pool}")));
    words.extend(
        change.port.map(|port| format!("{} on {port}", change.mac.map(|mac| mac.to_string()).unwrap_or_default())),
    );
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (&change.before, &change.after) {
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let side = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        for key in keys.into_iter().filter(|key| before.get(*key) != after.get(*key)) {
            words.push(format!("{key}: {} -> {}", side(before.get(key)), side(after.get(key))));
        }
    }
    words.extend(entry.author.why.iter().map(|why| format!("because: {why}")));
    words.join("; ")
}

#!/bin/bash
# Subject: the crate macaddr 1.0.1, a MAC's form with dots (`{:#}`).
# A good guess: three groups of four digits, as switches have it, which the crate reads, too.
# Seen: four groups of three, 525.400.000.001, which it does not read; of eight octets it makes groups of four, and reads them. What it
#   reads of a switch (5254.0000.0001) it cannot write.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
crates macaddr@=1.0.1 <<'END'
use macaddr::{MacAddr6, MacAddr8};
fn main() {
    let six: MacAddr6 = "5254.0000.0001".parse().unwrap();
    let text = format!("{six:#}");
    println!("5254.0000.0001 is {text}, read again: {:?}", text.parse::<MacAddr6>());
    let eight: MacAddr8 = "5254.0000.0001.0203".parse().unwrap();
    let text = format!("{eight:#}");
    println!("5254.0000.0001.0203 is {text}, read again: {:?}", text.parse::<MacAddr8>());
}
END
seen "$("$work/reader/target/debug/reader")" <<'END'
5254.0000.0001 is 525.400.000.001, read again: Err(InvalidCharacter('.', 4))
5254.0000.0001.0203 is 5254.0000.0001.0203, read again: Ok(MacAddr8([82, 84, 0, 0, 0, 1, 2, 3]))
END

#!/bin/bash
# Subject: Net::IP 1.26 and Net::IP::XS 0.22 for Perl (Debian 12); the second is the first's interface in C.
# A good guess: the same answers, faster.
# Seen: other kinds of addresses: a documentation prefix and the carriers' shared one are PUBLIC, 2001:db8:: is RESERVED, 6to4 is
#   GLOBAL-UNICAST. The short form of a range is nothing, where Net::IP cuts it to 203.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian libnet-ip-perl=1.26-3 libnet-ip-xs-perl=0.22-1 libtie-simple-perl=1.04-4
seen "$(PERL5LIB=$root/usr/share/perl5:$(echo "$root"/usr/lib/*/perl5/5.*) perl -MNet::IP -MNet::IP::XS -e '
for my $address (qw(203.0.113.5 100.64.0.1 10.0.0.1 8.8.8.8 192.0.0.9 2001:db8::1 2002::1 fd00::1 fe80::1)) {
    print join(" ", $address, map { $_->new($address)->iptype } "Net::IP", "Net::IP::XS"), "\n";
}
for my $class ("Net::IP", "Net::IP::XS") {
    my $short = $class->new("203.0.113.0 - 203.0.113.9")->short;
    print "$class: short of .0 to .9: ", $short // "nothing", "\n";
}')" <<'END'
203.0.113.5 TEST-NET PUBLIC
100.64.0.1 SHARED PUBLIC
10.0.0.1 PRIVATE PRIVATE
8.8.8.8 PUBLIC PUBLIC
192.0.0.9 RESERVED PUBLIC
2001:db8::1 DOCUMENTATION RESERVED
2002::1 6TO4 GLOBAL-UNICAST
fd00::1 UNIQUE-LOCAL-UNICAST UNIQUE-LOCAL-UNICAST
fe80::1 LINK-LOCAL-UNICAST LINK-LOCAL-UNICAST
Net::IP: short of .0 to .9: 203
Net::IP::XS: short of .0 to .9: nothing
END

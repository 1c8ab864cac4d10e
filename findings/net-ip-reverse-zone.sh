#!/bin/bash
# Subject: Net::IP 1.26, Net::DNS 1.36 (Debian 12) and Python's ipaddress: the reverse name of a prefix that ends
#   between two labels.
# A good guess: half of a /24 has no name of its own: refused, or the zone that contains it, the same way for both
#   halves and families.
# Seen: Net::IP leaves zeros off at the end: the first half of a /24 gets the name of the whole, the second half the
#   name of one address; an IPv6 /33 gets the zone of its /32, a /22 the first of its four zones. Net::DNS goes to the
#   next label instead. ipaddress reverses the text with the slash: for IPv4 this looks like a zone after RFC 2317, for
#   IPv6 it has labels `3.3./`.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian libnet-ip-perl=1.26-3 libnet-dns-perl=1.36-1+deb12u1
prefixes="203.0.113.0/25 203.0.113.128/25 203.0.112.0/22 2001:db8:8000::/33"
# shellcheck disable=SC2086 # One word each.
seen "$(perl -I "$root/usr/share/perl5" -MNet::IP -MNet::DNS -e 'for (@ARGV) {
    print "$_\n  Net::IP   ", Net::IP->new($_)->reverse_ip, "\n  Net::DNS  ", Net::DNS::Question->new($_)->qname, "\n"
}' $prefixes
python3 -c 'import ipaddress, sys
for prefix in sys.argv[1:]: print("  ipaddress", ipaddress.ip_network(prefix).reverse_pointer)' $prefixes)" <<'END'
203.0.113.0/25
  Net::IP   113.0.203.in-addr.arpa.
  Net::DNS  0.113.0.203.in-addr.arpa
203.0.113.128/25
  Net::IP   128.113.0.203.in-addr.arpa.
  Net::DNS  128.113.0.203.in-addr.arpa
203.0.112.0/22
  Net::IP   112.0.203.in-addr.arpa.
  Net::DNS  112.0.203.in-addr.arpa
2001:db8:8000::/33
  Net::IP   8.b.d.0.1.0.0.2.ip6.arpa.
  Net::DNS  8.8.b.d.0.1.0.0.2.ip6.arpa
  ipaddress 0/25.113.0.203.in-addr.arpa
  ipaddress 128/25.113.0.203.in-addr.arpa
  ipaddress 0/22.112.0.203.in-addr.arpa
  ipaddress 3.3./.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.8.b.d.0.1.0.0.2.ip6.arpa
END

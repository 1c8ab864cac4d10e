#!/bin/bash
# Subject: NetAddr::IP 4.079 for Perl (Debian 12), arithmetic and text of addresses.
# A good guess: an address plus a number is the address that far behind it, whatever the length of its prefix; IPv6 is written as everybody does.
# Seen: it turns round at the end of the prefix: 203.0.113.5/24 + 300 is 203.0.113.49/24, 203.0.113.5/32 + 1 is 203.0.113.5/32, so that a
#   loop from one single address to another has no end. As text, IPv6 is in capitals and without `::`; `short` has the capitals, too.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian libnetaddr-ip-perl=4.079+dfsg-2+b1
seen "$(PERL5LIB=$root/usr/share/perl5:$(echo "$root"/usr/lib/*/perl5/5.*) perl -MNetAddr::IP -e '
sub of { NetAddr::IP->new($_[0]) }
print "$$_[0] + $$_[1]: ", of($$_[0]) + $$_[1], "\n" for ["203.0.113.5/24", 1], ["203.0.113.5/24", 300], ["203.0.113.5", 1], ["203.0.113.5/30", 1], ["203.0.113.7/30", 1], ["2001:db8::5", 1];
print "203.0.113.9 - 203.0.113.5: ", of("203.0.113.9") - of("203.0.113.5"), "\n";
print "text ", of("2001:db8::5"), ", short ", of("2001:db8::5")->short, ", canon ", of("2001:db8::5")->canon, "\n";
')" <<'END'
203.0.113.5/24 + 1: 203.0.113.6/24
203.0.113.5/24 + 300: 203.0.113.49/24
203.0.113.5 + 1: 203.0.113.5/32
203.0.113.5/30 + 1: 203.0.113.6/30
203.0.113.7/30 + 1: 203.0.113.4/30
2001:db8::5 + 1: 2001:DB8:0:0:0:0:0:5/128
203.0.113.9 - 203.0.113.5: 4
text 2001:DB8:0:0:0:0:0:5/128, short 2001:DB8::5, canon 2001:db8::5
END

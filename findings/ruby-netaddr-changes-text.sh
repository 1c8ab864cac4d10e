#!/bin/bash
# Subject: the Ruby library NetAddr 1.5.1 (Debian 12).
# A good guess: a MAC's text is what it was after it was read; a tree without a match says so; a range includes its ends.
# Seen: EUI.create takes the colons out of the caller's own text, and refuses one that is frozen, as each literal is with Ruby's magic
#   comment for that. A look-up without a match finds 0.0.0.0/0, which nobody put into the tree. A range leaves out both ends.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ruby3.1=3.1.7+really3.1.2-0+deb12u1 libruby3.1=3.1.7+really3.1.2-0+deb12u1 ruby-netaddr=1.5.1-3
export RUBYLIB=$root/usr/share/rubygems-integration/all/gems/netaddr-1.5.1/lib:$root/usr/lib/ruby/3.1.0:$libraries/ruby/3.1.0
seen "$(unpacked "$root/usr/bin/ruby3.1" --disable-gems - <<'END'
require "netaddr"
text = +"52:54:00:00:00:01"
mac = NetAddr::EUI.create(text)
puts "MAC #{mac.address(Delimiter: ':')}, the text it was read from: #{text}"
begin
  NetAddr::EUI.create("52:54:00:00:00:01".freeze)
rescue => error
  puts "#{error.class}: #{error.message}"
end
tree = NetAddr::Tree.new
tree.add!("203.0.113.0/24")
["203.0.113.5", "198.51.100.5"].each { |address| puts "#{address} is in #{tree.longest_match(address)}" }
puts "from .5 to .9: #{NetAddr.range('203.0.113.5', '203.0.113.9').join(' ')}"
END
)" <<'END'
MAC 52:54:00:00:00:01, the text it was read from: 525400000001
FrozenError: can't modify frozen String: "52:54:00:00:00:01"
203.0.113.5 is in 203.0.113.0/24
198.51.100.5 is in 0.0.0.0/0
from .5 to .9: 203.0.113.6 203.0.113.7 203.0.113.8
END

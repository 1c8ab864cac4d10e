#!/bin/bash
# Subject: mmdb-writer 0.2.7 for Python, which makes databases in MaxMind's format, read by maxminddb 3.2.0.
# A good guess: a value is read with the type it was written with, boolean, whole number or `double`, as the format has them apart; of two
#   prefixes the more specific one answers for its addresses, whatever the order.
# Seen: values that are equal in Python are written once, for the whole file: True is 1 as soon as a 1 stands anywhere before it, False is 0,
#   and 1 is 1.0. What type a field has depends on other networks' fields, and a reader with types refuses the record. And a larger prefix
#   that comes later takes the place of the smaller one.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python mmdb-writer==0.2.7 netaddr==1.3.0 maxminddb==3.2.0
seen "$(python3 - "$work/made.mmdb" <<'END'
import sys
import maxminddb
from mmdb_writer import MMDBWriter
from netaddr import IPSet


def made(title, *networks):
    writer = MMDBWriter()
    for prefix, value in networks:
        writer.insert_network(IPSet([prefix]), value)
    writer.to_db_file(sys.argv[1])
    print(title)
    with maxminddb.open_database(sys.argv[1]) as database:
        for prefix, value in networks:
            print(f"  {prefix} {value} ->", database.get(prefix.split("/")[0]))


made("a boolean alone:", ("203.0.113.0/24", {"anycast": True}))
made("behind a number:", ("198.51.100.0/24", {"count": 1}), ("203.0.113.0/24", {"anycast": True}))
made("behind a double:", ("198.51.100.0/24", {"latitude": 1.0}), ("203.0.113.0/24", {"count": 1, "anycast": True}))
made("in one record:", ("203.0.113.0/24", {"count": 0, "anycast": False}))
made("large first:", ("203.0.113.0/24", "large"), ("203.0.113.0/25", "small"))
made("small first:", ("203.0.113.0/25", "small"), ("203.0.113.0/24", "large"))
END
)" <<'END'
a boolean alone:
  203.0.113.0/24 {'anycast': True} -> {'anycast': True}
behind a number:
  198.51.100.0/24 {'count': 1} -> {'count': 1}
  203.0.113.0/24 {'anycast': True} -> {'anycast': 1}
behind a double:
  198.51.100.0/24 {'latitude': 1.0} -> {'latitude': 1.0}
  203.0.113.0/24 {'count': 1, 'anycast': True} -> {'count': 1.0, 'anycast': 1.0}
in one record:
  203.0.113.0/24 {'count': 0, 'anycast': False} -> {'count': 0, 'anycast': 0}
large first:
  203.0.113.0/24 large -> small
  203.0.113.0/25 small -> small
small first:
  203.0.113.0/25 small -> large
  203.0.113.0/24 large -> large
END

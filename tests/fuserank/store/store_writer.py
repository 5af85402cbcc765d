"""Run as a process by test_durability: threads write events and print each id once it is acknowledged."""

import sys
import threading

from fuserank.store.database import Database


def write(database: Database, name: str) -> None:
    number = 0
    while True:
        events = [{"event_id": f"{name}-{number}-{i}", "type": "click", "product_id": "p"} for i in range(5)]
        result = database.add_events(events)
        if result.accepted == 5:
            line = "".join(f"{event['event_id']}\n" for event in events)
            sys.stdout.write(line)
            sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    url, name = sys.argv[1:]
    shared = Database(url)
    for thread in range(4):
        threading.Thread(target=write, args=(shared, f"{name}-{thread}")).start()

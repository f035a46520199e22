"""What `handloom status` says of a run that has not ended."""

import os

from support.rows import RUN_KEY

from handloom.pipelines.status import status, status_text
from handloom.store.database import Database
from handloom.store.holder import Holder, this_process
from handloom.store.lease import leased


def last_line(db):
    (line,) = [line for line in status_text(status(db)).splitlines() if line.startswith("last run")]
    return line


def test_a_run_lives_or_has_died(tmp_path):
    db = Database.open(tmp_path, create=True)
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}, where="start_s < 1") as lease:
        here = this_process()
        assert f"running on host {here.host}, process {os.getpid()}, user {here.user}; last heartbeat " in last_line(db)
        assert status(db)["last_run"]["holder"] == {
            "host": here.host,
            "pid": os.getpid(),
            "user": here.user,
            "where": "start_s < 1",
            "gone": False,
        }
    holder = Holder.from_json(lease.run.holder)
    for gone, word in (
        (Holder(holder.host, holder.pid, holder.user, holder.machine, 1), "died"),
        (None, "running, or"),
    ):
        db.table("runs").update({"holder": f"'{gone.to_json()}'" if gone else "NULL"})
        assert f": {word}" in last_line(db)

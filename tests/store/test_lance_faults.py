"""Real faults with the installed Lance: if a new version reports one in other words, a test fails here.

Those of a disk are made in a process of their own, which may then limit itself and give up its rights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import lance
import pyarrow as pa
import pytest
from support.s3_server import s3_server, send

from handloom.store.lance_faults import LANCE_ERRORS, Fault, fault_of, first_words, is_filters_fault, is_missing
from handloom.store.location import storage_options_from

ON_DISK = """
import json, os, resource, subprocess, sys
import lance, numpy as np, pyarrow as pa
from handloom.store.lance_faults import LANCE_ERRORS, fault_of, is_missing

root, told = sys.argv[1], {}
table = pa.table({"a": np.random.default_rng(0).integers(0, 2**60, 100_000)})

def tell(what, work):
    try:
        work()
        told[what] = "nothing"
    except LANCE_ERRORS as error:
        fault = fault_of(error)
        told[what] = "no table" if is_missing(error) else fault and fault.name or str(error)

def mount(name, options):
    os.mkdir(f"{root}/{name}")
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", f"{root}/{name}"], capture_output=True)

def unmount(name):
    subprocess.run(["umount", f"{root}/{name}"], check=True)

tell("missing", lambda: lance.dataset(f"{root}/none.lance"))
lance.write_dataset(table, f"{root}/x.lance")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
tell("too large", lambda: lance.write_dataset(table, f"{root}/y.lance"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if os.geteuid() == 0 and mount("small", "size=200k").returncode == 0:
    try:
        tell("full", lambda: lance.write_dataset(table, f"{root}/small/y.lance"))
    finally:
        unmount("small")
    if mount("frozen", "size=200k,ro").returncode == 0:
        try:
            tell("read only", lambda: lance.write_dataset(table, f"{root}/frozen/y.lance"))
        finally:
            unmount("frozen")
os.chmod(f"{root}/x.lance", 0)
if os.geteuid() == 0:
    os.seteuid(65534)  # root may do all
tell("may not read", lambda: lance.dataset(f"{root}/x.lance").to_table())
tell("may not write", lambda: lance.write_dataset(table, f"{root}/x.lance", mode="append"))
os.seteuid(os.getuid())
os.chmod(f"{root}/x.lance", 0o700)
print(json.dumps(told))
"""


def test_faults_of_a_disk(tmp_path):
    root = tmp_path / "disk"
    root.mkdir()
    done = subprocess.run([sys.executable, "-c", ON_DISK, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    expected = {"missing": "no table", "too large": "FULL", "may not read": "REFUSED", "may not write": "REFUSED"}
    if "full" in told:  # where file systems may be mounted
        expected |= {"full": "FULL", "read only": "REFUSED"}
    assert told == expected


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as env:
        options = storage_options_from(env)
        lance.write_dataset(pa.table({"a": [1]}), "s3://bucket/x.lance", storage_options=options)
        yield env, options


def raised(uri: str, options: dict[str, str], write: bool = False) -> Exception:
    def ask() -> None:
        if write:
            lance.write_dataset(pa.table({"a": [1]}), uri, storage_options=options, mode="append")
        else:
            lance.dataset(uri, storage_options=options)

    with pytest.raises(LANCE_ERRORS) as error:
        ask()
    return error.value


@pytest.mark.parametrize("write", [False, True])
def test_faults_of_s3(bucket, write, monkeypatch):
    env, options = bucket
    assert fault_of(raised("s3://absent/x.lance", options, write)) is Fault.NO_BUCKET
    nowhere = options | {"aws_endpoint": "http://127.0.0.1:9", "client_max_retries": "0"}
    assert fault_of(raised("s3://bucket/x.lance", nowhere, write)) is Fault.UNREACHABLE
    if not write:
        assert is_missing(raised("s3://bucket/none.lance", options))
    for name in (*env, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    without = {name: value for name, value in options.items() if "key" not in name}
    assert fault_of(raised("s3://bucket/x.lance", without, write)) is Fault.WRONG_KEY


def test_a_key_that_the_server_does_not_know(bucket):
    env, options = bucket
    switch = f"{env['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    send(switch, "POST", b"0")
    try:
        for write in (False, True):
            error = raised("s3://bucket/x.lance", options, write)
            assert fault_of(error) is Fault.WRONG_KEY
            assert first_words(error).startswith("the server says InvalidAccessKeyId: ")
    finally:
        send(switch, "POST", b"inf")


def test_a_wrong_filter_is_not_a_fault_of_the_disk(tmp_path):
    lance.write_dataset(pa.table({"a": [1], "s": ["x"]}), str(tmp_path / "x.lance"))
    table = lance.dataset(str(tmp_path / "x.lance"))
    for text in ("b > 1", "a > ", "a > 'x'"):
        for read in (lambda where: table.to_table(filter=where), table.count_rows):
            with pytest.raises(LANCE_ERRORS) as error:
                read(text)
            assert is_filters_fault(error.value)
            assert fault_of(error.value) is None
    assert not is_filters_fault(OSError("LanceError(IO): No space left on device (os error 28)"))


def test_errors_of_python_are_recognised_by_their_number():
    assert fault_of(OSError(28, "No space left on device")) is Fault.FULL
    assert fault_of(PermissionError(13, "Permission denied")) is Fault.REFUSED
    assert is_missing(FileNotFoundError(2, "no such file"))
    assert fault_of(ValueError("the disk is full of nonsense")) is None

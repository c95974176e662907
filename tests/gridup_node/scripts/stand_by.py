"""Have syft's client imported, and run scripts in copies of this process: to import it takes seconds.

A request is a line of JSON: the script and its words, the environment, and the files that it reads and
writes. The answer is two lines: the process, and its exit code.
"""

import gc
import json
import os
import runpy
import sys
import tempfile
import traceback

gc.disable()
import syft  # noqa: E402, F401 - what is had in advance

gc.freeze()
gc.enable()


def play(asked: dict[str, object]) -> int:
    """In a copy of the process: the script, as if it had been started by itself."""
    os.setsid()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        how = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
        os.dup2(os.open(str(asked[name]), how), number)
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[arg-type, call-overload]
    tempfile.tempdir = None
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - what came for this process is read
    sys.path[:0] = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.argv = asked["argv"]  # type: ignore[assignment]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            sys.stderr.write(f"{ended.code}\n")
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does at the end of a program
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return 0


def say(**said: int) -> None:
    print(json.dumps(said), flush=True)


for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os._exit(play(json.loads(line)))
    say(pid=pid)
    say(code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

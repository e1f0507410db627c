"""Run the stand-in from a shell, with monitors whose runs complete, fail and are canceled."""

import argparse
import logging
import shlex
import signal
import threading

from airflow_provider_exa.standin import StandIn

ENDINGS = {"mon_completes": "completed", "mon_fails": "failed", "mon_cancels": "canceled"}
FOUND = [{"url": f"https://example.com/{number}", "title": f"Page {number}"} for number in (1, 2)]


def main() -> None:
    """Serve until interrupted or terminated."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_exa.standin", description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="at 127.0.0.1; 0: a free one (%(default)s)")
    parser.add_argument("--api-key", default="standin-key", help="the key it accepts (%(default)s)")
    parser.add_argument(
        "--every", type=float, default=30, metavar="SECONDS", help="from one run to the next (%(default)s)"
    )
    parser.add_argument(
        "--takes",
        type=float,
        default=10,
        metavar="SECONDS",
        help="from a run's start to its end (%(default)s)",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with StandIn(port=options.port, api_key=options.api_key) as exa:
            for monitor, ending in ENDINGS.items():
                states = [(0, "created"), (options.takes / 5, "running"), (options.takes, ending)]
                exa.every(
                    monitor,
                    seconds=options.every,
                    states=states,
                    failed_reason="search_failed",
                    results=FOUND,
                )
            print(f"Exa's stand-in is at {exa.url}, with monitors {', '.join(ENDINGS)}. To use it:")
            print(f"export AIRFLOW_CONN_EXA_DEFAULT={shlex.quote(exa.connection())}", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    except OSError as error:
        parser.error(error.strerror or str(error))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

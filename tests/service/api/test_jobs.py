"""Audiences over HTTP: begin, watch, fetch, cancel; and how much of it there may be."""

import threading

import polars as pl
import pytest

from nextbuy.errors import ConfigError, OverloadedError
from nextbuy.service.config import JobLimits
from nextbuy.service.jobs import Jobs

ASKED = {"item": "tea", "within_days": 7}
TABLE = pl.DataFrame({"user_id": ["a", "b"]})


@pytest.fixture
def jobs():
    made = Jobs(JobLimits())
    yield made
    made.close()


def ended(jobs, job):
    found = jobs.wait(job.id, 10)
    assert found.state in ("done", "failed")
    return found


def begin(service, **body):
    told = service.post("/v1/audience", {**ASKED, **body})
    assert told.status_code == 202, told.text
    assert told.headers["location"] == f"/v1/jobs/{told.json()['id']}"
    return told.json()["id"]


def result(service, job, **options):
    return service.call("GET", f"/v1/jobs/{job}/result{options.pop('query', '')}", **options)


def test_an_audience_is_begun_watched_and_fetched(service):
    service.model.gate = threading.Event()
    job = begin(service)
    assert service.model.started.wait(10)
    told = service.call("GET", f"/v1/jobs/{job}").json()
    assert (told["state"], told["rows"]) == ("running", None)
    early = result(service, job)
    assert early.status_code == 409
    service.model.gate.set()
    service.jobs.wait(job, 10)
    told = service.call("GET", f"/v1/jobs/{job}").json()
    assert told == {
        "id": job, "state": "done", "progress": 1.0, "rows": 2, "version": "000001",
        "detail": None,
    }  # fmt: skip


def test_S41_a_result_in_csv_holds_no_formula_and_in_json_lines_all_is_exact(service):
    job = begin(service)
    service.jobs.wait(job, 10)
    csv = result(service, job)
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text.splitlines()[:2] == [
        "user_id,rank,probability,expected_purchases,expected_value,group",
        "'=1+1,1,0.9,1.0,,target",
    ]
    exact = result(service, job, query="?format=jsonl").text.splitlines()
    assert exact[0].startswith('{"user_id":"=1+1","rank":1,')
    assert len(exact) == 2
    accepted = result(service, job, headers={"accept": "application/x-ndjson"})
    assert accepted.text.splitlines() == exact
    assert result(service, job, headers={"accept": "image/png"}).status_code == 406
    assert result(service, job, query="?format=xlsx").status_code == 422


def test_a_job_that_fails_says_why(service):
    def broken(*_, **__):
        raise ConfigError("The item 'x' is not among the 3 that were bought.")

    service.model.audience = broken
    job = begin(service)
    service.jobs.wait(job, 10)
    told = service.call("GET", f"/v1/jobs/{job}").json()
    assert (told["state"], told["detail"][:12]) == ("failed", "The item 'x'")
    assert result(service, job).status_code == 409


def test_a_running_job_that_is_deleted_is_gone_and_stops_at_its_next_step(service):
    service.model.gate = threading.Event()
    first = begin(service)
    assert service.model.started.wait(10)
    told = service.call("DELETE", f"/v1/jobs/{first}")
    assert (told.status_code, told.json()["state"]) == (200, "cancelled")
    assert service.call("GET", f"/v1/jobs/{first}").status_code == 404
    second = begin(service)
    service.model.gate.set()
    service.jobs.wait(second, 10)
    assert service.call("GET", f"/v1/jobs/{second}").json()["state"] == "done"
    assert service.model.steps == [0.0, 0.0, 0.5]  # the first did not come to its second step


def test_a_waiting_job_that_is_deleted_never_runs(service):
    service.model.gate = threading.Event()
    first, second = begin(service), begin(service)
    assert service.call("DELETE", f"/v1/jobs/{second}").json()["state"] == "cancelled"
    service.model.gate.set()
    service.jobs.wait(first, 10)
    third = begin(service)
    service.jobs.wait(third, 10)
    assert service.model.steps == [0.0, 0.5, 0.0, 0.5]


def test_jobs_that_are_begun_and_deleted_make_no_queue(jobs):
    gate, started, ran = threading.Event(), threading.Event(), []

    def slow(_):
        started.set()
        gate.wait(10)
        return TABLE, "1"

    jobs.submit(slow)
    assert started.wait(10)
    for number in range(100):
        jobs.cancel(jobs.submit(lambda _, number=number: ran.append(number)).id)
    last = jobs.submit(lambda _: (TABLE, "1"))
    gate.set()
    assert ended(jobs, last).state == "done"
    assert ran == []


def test_deleting_a_job_that_ended_forgets_its_result(service):
    job = begin(service)
    service.jobs.wait(job, 10)
    assert service.call("DELETE", f"/v1/jobs/{job}").status_code == 200
    for method, path in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
        assert service.call(method, f"/v1/jobs/{job}{path}").status_code == 404


def test_too_many_jobs_are_told_to_come_back(service_of):
    service = service_of()
    service.model.gate = threading.Event()
    begun = [service.post("/v1/audience", ASKED) for _ in range(10)]
    assert [told.status_code for told in begun] == [202] * 9 + [429]
    assert begun[-1].headers["retry-after"] == "10"
    service.model.gate.set()


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"within_days": 7}, {"item": "tea"}, {**ASKED, "platform": "web"},
        {**ASKED, "item": None}, {**ASKED, "within_days": 0}, {**ASKED, "holdout_share": 1},
        {**ASKED, "min_probability": 1.5}, {**ASKED, "size": 0},
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_at_once(service, wrong):
    assert service.post("/v1/audience", wrong).status_code == 422


def test_work_that_breaks_in_an_unforeseen_way_hides_the_details(jobs, caplog):
    def broken(_):
        raise RuntimeError("hunter2")

    found = ended(jobs, jobs.submit(broken))
    assert (found.state, found.detail) == ("failed", "Something went wrong; the log has it.")
    assert "hunter2" in caplog.text


def test_results_expire_by_age_by_number_and_by_size():
    now = [0.0]
    held = TABLE.estimated_size()
    jobs = Jobs(JobLimits(kept=3, kept_seconds=60, result_bytes=2 * held), clock=lambda: now[0])
    try:
        made = []
        for moment in range(3):
            now[0] = float(moment)
            made.append(jobs.submit(lambda _: (TABLE, "1")))
            ended(jobs, made[-1])
        assert jobs.find(made[0].id) is None  # three results are larger than two
        assert jobs.find(made[1].id).table is not None
        now[0] = 61.5  # the second ended at 1
        assert jobs.find(made[1].id) is None
        assert jobs.find(made[2].id) is not None
        for _ in range(3):
            ended(jobs, jobs.submit(lambda _: (TABLE.clear(), "1")))
        assert jobs.find(made[2].id) is None  # three newer ones are kept
    finally:
        jobs.close()


def test_after_closing_nothing_is_taken_and_what_ran_is_stopped():
    jobs, started, gate, stopped = Jobs(JobLimits()), threading.Event(), threading.Event(), []

    def work(progress):
        started.set()
        try:
            while True:
                gate.wait(0.01)
                progress(0.5)
        finally:
            stopped.append(True)

    running, waiting = jobs.submit(work), jobs.submit(work)
    assert started.wait(10)
    jobs.close()
    assert stopped == [True]
    assert jobs.find(running.id) is jobs.find(waiting.id) is None
    with pytest.raises(OverloadedError, match="stopping"):
        jobs.submit(work)

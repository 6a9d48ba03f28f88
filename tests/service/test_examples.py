"""Every example of the OpenAPI document, sent to a real service as it stands there."""

import asyncio

import jsonschema
import pytest

from tests.service.assembled import using

JOB_ENDS = ("done", "failed")


def examples_of(operation):
    """Content type and body of each; one without a body where there is none."""
    content = operation.get("requestBody", {}).get("content", {})
    return [
        (kind, example["value"])
        for kind, described in content.items()
        for example in described["examples"].values()
    ] or [(None, None)]


def request_of(path, operation, kind, body, more):
    """What httpx sends; `more` replaces examples of parameters, by name."""
    values = {
        one["name"]: more.get(one["name"], one["example"]) for one in parameters_of(operation)
    }
    places = {one["name"]: one["in"] for one in parameters_of(operation)}
    headers = {name: values[name] for name, place in places.items() if place == "header"}
    options = {
        "url": path.format(**values),
        "params": {name: values[name] for name, place in places.items() if place == "query"},
        "headers": {name: value for name, value in headers.items() if value is not None},
    }
    if kind == "application/json":
        return options | {"json": body}
    if kind is not None:
        options["headers"]["Content-Type"] = kind
        return options | {"content": body}
    return options


def parameters_of(operation):
    return operation.get("parameters", [])


async def ended(client, job_id):
    while True:
        job = (await client.get(f"/v1/jobs/{job_id}")).json()
        if job["state"] in JOB_ENDS:
            return job
        await asyncio.sleep(0.01)


async def send_all(client):
    """The document, and what was answered to each of its examples; deletions come last."""
    document = (await client.get("/openapi.json")).json()
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    order = ["post", "get", "delete"]
    operations.sort(key=lambda each: (order.index(each[0]), "{job_id}" in each[1]))
    found, jobs = [], []
    for method, path, operation in operations:
        for number, (kind, body) in enumerate(examples_of(operation)):
            more = {"job_id": jobs[0]} if jobs else {}
            if number:  # one key is for one body
                more["Idempotency-Key"] = None
            told = await client.request(
                method.upper(), **request_of(path, operation, kind, body, more)
            )
            found.append((operation["operationId"], kind, body, told))
            if operation["operationId"] == "begin_audience":
                jobs.append(told.json()["id"])
                await ended(client, jobs[-1])
    return document, found


@pytest.fixture(scope="module")
def told(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    fitted.save(folder)
    return using(send_all, folder)


def test_every_example_is_accepted(told):
    document, found = told
    names = {op["operationId"] for one in document["paths"].values() for op in one.values()}
    assert {name for name, *_ in found} == names
    assert len(names) == 16
    for name, _, body, answer in found:
        assert answer.status_code in (200, 202), (name, body, answer.text)


def test_whatever_takes_a_body_or_a_parameter_shows_one(told):
    for methods in told[0]["paths"].values():
        for method, operation in methods.items():
            assert ("requestBody" in operation) == (method == "post")
            assert (examples_of(operation) == [(None, None)]) == (method != "post")
            for parameter in parameters_of(operation):
                jsonschema.validate(parameter["example"], parameter["schema"])


def test_bodies_fit_the_schema_that_stands_beside_them(told):
    document, found = told
    components = {"components": document["components"]}
    kinds = 0
    for methods in document["paths"].values():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {})
            for kind, body in examples_of(operation):
                if kind is not None:
                    jsonschema.validate(body, content[kind]["schema"] | components)
                    kinds += 1
    assert kinds == len([kind for _, kind, *_ in found if kind is not None]) >= 12


def test_answers_to_examples_say_something(told):
    """What a reader would see who copies them."""
    answers = {}
    for name, _, _, answer in told[1]:
        answers.setdefault(name, []).append(answer)
    assert [one.json()["stored"] for one in answers["store_purchases"]] == [1, 2]
    assert [one.json()["stored"] for one in answers["store_bulk"]] == [2, 2, 2]
    for answer in answers["predict"]:
        assert all(one["offers"] for one in answer.json()["answers"])
    assert answers["get_job"][0].json()["state"] == "done"
    assert answers["get_job_result"][0].text.count("\n") > 10
    assert answers["get_user"][0].json()["total"] >= 3

"""What went wrong, as people read it."""

from nextbuy.errors import (
    ConfigError,
    ModelUnavailableError,
    NextbuyError,
    OverloadedError,
    StoreError,
    StoreUnavailableError,
)
from nextbuy.service.page.pages import Problem

NO_MODEL = Problem(
    title="No model is loaded",
    words="Purchases are taken and kept, but there is nothing yet that could predict. Once a "
    "bundle is trained into the folder, and POST /v1/model told the service, answers appear here.",
    retry=True,
)


def problem_of(error: NextbuyError) -> tuple[int, Problem]:
    """Status and words for an error that was raised on purpose."""
    if isinstance(error, ModelUnavailableError):
        return 503, NO_MODEL
    if isinstance(error, OverloadedError):
        words = "Many questions wait at the moment. Try again in a few seconds."
        return 503, Problem(title="Too much at once", words=words, retry=True)
    if isinstance(error, StoreUnavailableError):
        words = "Live purchases cannot be reached just now. Nothing is lost; try again shortly."
        return 503, Problem(title="The store is away", words=words, retry=True)
    if isinstance(error, StoreError):
        words = "Live purchases cannot be used as they are. The log of the service says why."
        return 503, Problem(title="The store cannot be used", words=words)
    if isinstance(error, ConfigError):
        return 422, Problem(title="That cannot be answered", words=str(error))
    return 500, Problem(title="That did not work", words="The log of the service says why.")


def problem_of_status(status: int, detail: str) -> Problem:
    """Words for a refusal that was told as a status."""
    titles = {
        400: "The request is malformed",
        403: "You may not see this",
        404: "There is no such page",
        405: "That is not done here",
        413: "Too much was sent",
        414: "The address is too long",
        421: "This name is not answered to",
        429: "Too many requests",
        503: "Not now",
    }
    title = titles.get(status, "That did not work")
    words = "Perhaps the link is old. Everything there is can be reached from the top of the page."
    return Problem(
        title=title, words=words if status == 404 else detail, retry=status in (429, 503)
    )


def retry_headers(error: NextbuyError) -> dict[str, str]:
    """When to come again, for what may be tried again."""
    if isinstance(error, OverloadedError | StoreUnavailableError):
        return {"Retry-After": str(max(1, -int(-error.retry_after_seconds // 1)))}
    return {}

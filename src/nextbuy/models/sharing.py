"""Where a model is fitted: here, or, a network, by the workers that a run has."""

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.models.neural import NeuralModel
from nextbuy.models.protocol import FitOptions, Model
from nextbuy.splitting.cases import Cases


def fit_model(
    model: Model, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
) -> Model:
    """Fit a model where the options say; arguments and errors as for `Model.fit`.

    Models that count are fitted here, and networks that go on from what they were: sending the data
    would take longer.

    Returns:
        The fitted model, which is another object where workers fitted it.
    """
    if options.workers is None or options.start is not None or not isinstance(model, NeuralModel):
        return model.fit(train, validation, catalog, options)
    return options.workers.fit(model, train, validation, catalog, options)

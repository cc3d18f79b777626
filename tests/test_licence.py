"""The licence of weights follows from where their training data came from."""

import pytest

from mma_mrnnet.hub.licence import LICENCES, weights_licence
from mma_mrnnet.results import Provenance, read_provenance


def sources(*licences):
    return [Provenance(f"corpus {number}", licence) for number, licence in enumerate(licences)]


@pytest.mark.parametrize("licence", LICENCES)
def test_one_source_alone_gives_its_licence_to_the_weights(licence):
    assert weights_licence(sources(licence)) == licence


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["public-domain", "mit"], "mit"),
        (["mit", "apache-2.0"], "apache-2.0"),
        (["apache-2.0", "cc-by-4.0", "public-domain"], "cc-by-4.0"),
        (["cc-by-3.0", "cc-by-4.0"], "cc-by-4.0"),
        (["cc-by-sa-4.0", "cc-by-4.0"], "cc-by-sa-4.0"),
        (["cc-by-nc-4.0", "cc-by-sa-4.0"], "cc-by-nc-4.0"),
        (["research-only", "cc-by-nc-4.0", "mit"], "research-only"),
    ],
)
def test_the_most_restrictive_source_decides_in_any_order(licences, expected):
    assert weights_licence(sources(*licences)) == expected
    assert weights_licence(sources(*reversed(licences))) == expected


@pytest.mark.parametrize("unknown", ["unknown", "some-new-licence"])
def test_a_licence_that_nobody_knows_makes_the_whole_unknown(unknown):
    assert weights_licence(sources("mit", unknown, "research-only")) == "unknown"


def test_weights_of_which_no_source_is_recorded_have_an_unknown_licence():
    assert weights_licence([]) == "unknown"
    assert weights_licence(read_provenance({"data": {"data": "drawn faces"}})) == "unknown"


def test_a_provenance_survives_its_json_form():
    source = Provenance("london", "cc-by-4.0", labels="pseudo", attribution="Names, place")
    assert read_provenance({"provenance": [source.to_json()]}) == (source,)


@pytest.mark.parametrize(
    "entry", [None, "affectnet", {}, {"name": 3}, {"name": "a", "made_up": "no"}]
)
def test_what_is_no_provenance_is_refused(entry):
    with pytest.raises(ValueError, match="provenance"):
        read_provenance({"provenance": [entry]})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"licence": "CC-BY-4.0"}, "lower-case"),
        ({"licence": ""}, "lower-case"),
        ({"labels": "guessed"}, "human, pseudo, constructed, simulated, unknown"),
    ],
)
def test_a_corpus_cannot_declare_what_nobody_can_read(fields, message):
    with pytest.raises(ValueError, match=message):
        Provenance("corpus", **fields)

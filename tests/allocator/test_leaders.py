"""Who leads a council, and who answers where there is room for one."""

from msgspec.structs import replace

from server.allocator.allocate import allocate
from server.allocator.contention import Contention
from server.allocator.terms import Demand, Load, Policy
from tests.allocator.loads import candidate

LAW = Contention()


def test_who_answers_alone_is_the_best_and_not_the_cheapest() -> None:
    """Ten times as fast is worth more than the difference in quality where others sit too, and nothing for one."""
    load = Load(candidates=(candidate("ada", quality=0.54), candidate("bob", quality=0.52, decode_us=1_000.0)))
    for policy in (Policy(size_wanted=1), Policy(size_max=1), Policy(samples_only=True, size_wanted=1)):
        found = allocate(Demand(), load, policy, LAW)
        assert [each.model for each in found.members] == ["ada"]
    cut = allocate(Demand(), load, Policy(size_wanted=3), LAW, 1)
    assert ([each.model for each in cut.members], cut.binding) == (["ada"], "steady")
    equal = Load(candidates=(candidate("ada"), candidate("bob", prefill_us=200.0)))
    assert allocate(Demand(), equal, Policy(size_wanted=1), LAW).members[0].model == "bob"


def test_the_first_that_was_named_leads_until_people_have_spoken() -> None:
    """A quality that nobody has judged is a guess; who put the council together knows better."""
    ada, bob, cid = candidate("ada", quality=0.58), candidate("bob", quality=0.5), candidate("cid", quality=0.54)
    policy = Policy(members=("bob", "ada", "cid"))
    guessed = Load(candidates=(ada, bob, cid))
    judged = Load(candidates=(ada, replace(bob, observations=1.0), cid))
    for load, leads in ((guessed, "bob"), (judged, "ada")):
        assert allocate(Demand(), load, policy, LAW).members[0].model == leads
        alone = allocate(Demand(), load, replace(policy, size_max=1), LAW)
        assert [each.model for each in alone.members] == [leads]
    unnamed = allocate(Demand(), guessed, Policy(size_wanted=3, samples=False), LAW)
    assert unnamed.members[0].model == "ada"

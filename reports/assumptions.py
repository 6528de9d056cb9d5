"""What the simulator models and what it does not, for runs whose summary carries no list of its own."""

ASSUMPTIONS = (
    "Step times come from the fitted models of the hardware profile, and are only as good as that profile.",
    "Prompts are known by length and prefix only: token values, sampling and quality are not modelled.",
    "Tokenisation, client network time, failures and other tenants of the host are not modelled.",
)

"""How the built-in models come to be: facts, questions, tokenizer, training, GGUF, examination.

Theory of operation. A model of a few million numbers cannot know the world, but it can know one house. `facts.toml`
holds what is true of this server, and a test holds each fact against the product. `questions/*.txt` holds what people
ask and how we answer; answers name facts, never numbers. Each question is a small grammar that stands for many
phrasings. Training sees a fresh phrasing every time (with synonyms, typing errors and words cut in unusual places) and
is scored on the answer alone, so what it must learn is to tell questions apart and to recite.

    facts.toml ─┐
    questions ──┼─► texts ─► phrasing ─► tokenizer ─► train (PyTorch) ─► export (GGUF) ─► examine (llama.cpp)
    macros ─────┘

Everything is a function of the texts and a seed: the batch of step n can be made without those before it, so a run that
was stopped goes on as if it had not been.
"""

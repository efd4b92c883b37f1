"""The edge for programs: OpenAI's surface, health, and what every request passes first."""

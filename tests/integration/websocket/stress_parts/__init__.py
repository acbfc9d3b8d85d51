"""The stress test's random schedules, clients, and model of what each client must get."""

"""An application that publishes while Django is set up."""

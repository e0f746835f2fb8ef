//! Pages, API, live logs and the Blossom endpoint. The only place that knows HTML.

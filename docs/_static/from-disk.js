// A page that is opened from disk may not fetch others, so a search there shows titles without summaries.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

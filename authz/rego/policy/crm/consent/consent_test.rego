package crm.consent_test

import data.crm.consent

asks(purpose, consents) := {"environment": {"purpose": purpose}, "resource": {"consents": consents}}

test_allow_other_purpose[name] if {
	some name, purpose in {"none": "", "sales": "sales"}
	consent.given with input as asks(purpose, [])
}

test_allow_with_consent if consent.given with input as asks("marketing", ["research", "marketing"])

test_deny_without_consent[name] if {
	some name, consents in {
		"none": [], "to something else": ["research"], "case": ["Marketing"],
		"null": null, "yes": true, "word": "marketing", "list of null": [null],
	}
	not consent.given with input as asks("marketing", consents)
}

test_deny_no_purpose_at_all[name] if {
	some name, purpose in {"null": null, "number": 1, "list": ["marketing"]}
	not consent.given with input as asks(purpose, ["marketing"])
}

test_deny_settings_of_another_form[name] if {
	some name, purposes in {"null": null, "word": "marketing", "yes": true}
	not consent.given with input as asks("marketing", ["marketing"]) with data.settings.consent_purposes as purposes
}

test_deny_missing if {
	not consent.given with input as {"environment": {"purpose": "marketing"}, "resource": {}}
	not consent.given with input as {"environment": {}, "resource": {"consents": ["marketing"]}}
	not consent.given with input as {}
}

package crm.purpose_test

import data.crm.purpose

asks(action, stated) := {"action": action, "environment": {"purpose": stated}}

settings := {"export": ["sales", "support"], "read": []}

test_allow_as_shipped[stated] if {
	some stated in ["", "sales", "marketing"]
	purpose.allowed with input as asks("export", stated)
}

test_allow_listed if purpose.allowed with input as asks("export", "sales") with data.settings.purposes as settings

test_allow_any_where_none_is_listed if {
	purpose.allowed with input as asks("read", "") with data.settings.purposes as settings
	purpose.allowed with input as asks("list", "x") with data.settings.purposes as settings
}

test_deny_other[name] if {
	some name, stated in {
		"other": "marketing", "empty": "", "case": "Sales", "space": "sales ",
		"null": null, "list": ["sales"], "number": 1,
	}
	not purpose.allowed with input as asks("export", stated) with data.settings.purposes as settings
}

test_deny_no_purpose_at_all[name] if {
	some name, stated in {"null": null, "list": ["sales"], "number": 1}
	not purpose.allowed with input as asks("read", stated) with data.settings.purposes as settings
}

test_deny_settings_of_another_form[name] if {
	some name, purposes in {"null": null, "word": "sales", "number": {"export": 0}}
	not purpose.allowed with input as asks("export", "sales") with data.settings.purposes as purposes
}

test_deny_missing if {
	not purpose.allowed with input as {}
	not purpose.allowed with input as {"action": "read", "environment": {}}
	not purpose.allowed with input as {"environment": {"purpose": "sales"}}
}

package crm.fields_test

import data.crm.fields

asks(roles, action) := {"subject": {"id": "e1", "roles": roles}, "action": action, "resource": {"type": "customer"}}

shown(pairs, name) := max({0} | {data.settings.levels[level] | some level in {l | some [n, l] in pairs; n == name}})

test_allow_sales_masks_in_lists if {
	["personal", "masked"] in fields.by_class with input as asks(["sales"], "list")
	["internal", "open"] in fields.by_class with input as asks(["sales"], "list")
	not ["personal", "open"] in fields.by_class with input as asks(["sales"], "list")
}

test_allow_admin_personal if ["personal", "open"] in fields.by_class with input as asks(["admin"], "read")

test_allow_reveal_of_personal if ["personal", "open"] in fields.by_class with input as asks(["sales"], "reveal")

test_allow_both_levels_of_two_roles if {
	pairs := fields.by_class with input as asks(["sales", "admin"], "read")
	["personal", "masked"] in pairs
	["personal", "open"] in pairs
}

test_allow_name_by_override if ["name", "open"] in fields.by_name with input as asks(["sales"], "list")

test_deny_name_of_another_type if {
	ask := {"subject": {"id": "e1", "roles": ["sales"]}, "action": "list", "resource": {"type": "quote"}}
	fields.by_name == set() with input as ask
}

test_deny_sensitive_to_sales[action] if {
	some action in ["list", "read", "reveal", "export"]
	pairs := fields.by_class with input as asks(["sales"], action)
	shown(pairs, "sensitive") == 0
}

test_deny_unknown_role if {
	fields.by_class == set() with input as asks(["root"], "read")
	fields.by_name == set() with input as asks(["root"], "read")
}

test_deny_unknown_action if {
	fields.by_class == set() with input as asks(["admin"], "shred")
	fields.by_name == set() with input as asks(["admin"], "shred")
}

test_deny_personal_to_auditor if {
	pairs := fields.by_class with input as asks(["auditor"], "read")
	shown(pairs, "personal") == 0
}

test_deny_personal_in_numbers[role] if {
	some role in object.keys(data.settings.inherits)
	pairs := fields.by_class with input as asks([role], "aggregate")
	every class in {"personal", "sensitive", "financial"} {
		shown(pairs, class) == 0
	}
}

# Before the claim nobody sees more than a mask of a person, whatever else they may.
test_allow_masks_in_a_pool[action] if {
	some action in ["browse", "claim"]
	every role in {"sales", "manager", "admin"} {
		pairs := fields.by_class with input as asks([role], action)
		shown(pairs, "internal") == 2
		shown(pairs, "personal") == 1
	}
}

test_deny_more_in_a_pool[role] if {
	some role in object.keys(data.settings.inherits)
	every action in {"browse", "claim"} {
		pairs := fields.by_class with input as asks([role], action)
		shown(pairs, "personal") <= 1
		shown(pairs, "sensitive") == 0
		shown(pairs, "financial") == 0
		fields.by_name == set() with input as asks([role], action)
	}
}

test_deny_names_in_a_pool[type] if {
	some type in ["customer", "lead"]
	every role in object.keys(data.settings.inherits) {
		every action in {"browse", "claim"} {
			ask := {"subject": {"id": "e1", "roles": [role]}, "action": action, "resource": {"type": type}}
			fields.by_name == set() with input as ask
		}
	}
}

test_deny_analyst_every_other_view[action] if {
	some action in ["list", "read", "search", "reveal", "export", "update"]
	fields.by_class == set() with input as asks(["analyst"], action)
	fields.by_name == set() with input as asks(["analyst"], action)
}

test_deny_exports_more_than_lists[role] if {
	some role in object.keys(data.settings.inherits)
	in_lists := fields.by_class with input as asks([role], "list")
	in_exports := fields.by_class with input as asks([role], "export")
	every class in data.settings.classes {
		shown(in_exports, class) <= shown(in_lists, class)
	}
	names_in_lists := fields.by_name with input as asks([role], "list")
	names_in_exports := fields.by_name with input as asks([role], "export")
	names_in_exports == names_in_lists
}

test_deny_missing if {
	fields.by_class == set() with input as {}
	fields.by_name == set() with input as {"subject": {"id": "e1", "roles": ["admin"]}, "action": "read"}
}

# Who could read it would know which row of an exported file is made up.
test_deny_canary_of_exports[role] if {
	some role in (object.keys(data.settings.inherits) - {"system"})
	every action in {"list", "read", "reveal", "export"} {
		ask := {"subject": {"id": "e1", "roles": [role]}, "action": action, "resource": {"type": "export"}}
		names := fields.by_name with input as ask
		classes := fields.by_class with input as ask
		named := {level | some [n, level] in names; n == "canary"}
		levels := named | {level | count(named) == 0; some [n, level] in classes; n == "sensitive"}
		max({0} | {data.settings.levels[level] | some level in levels}) == 0
	}
}

package crm.fields_test

import data.crm.fields

asks(roles, action) := {"subject": {"id": "e1", "roles": roles}, "action": action, "resource": {"type": "customer"}}

test_sales_sees_masks_in_lists if {
	fields.by_class.personal == 1 with input as asks(["sales"], "list")
	fields.by_class.internal == 2 with input as asks(["sales"], "list")
}

test_admin_sees_personal if fields.by_class.personal == 2 with input as asks(["admin"], "read")

test_reveal_opens_personal if fields.by_class.personal == 2 with input as asks(["sales"], "reveal")

test_highest_role_counts if fields.by_class.personal == 2 with input as asks(["sales", "admin"], "read")

test_name_is_open_by_override if fields.by_name.name == 2 with input as asks(["sales"], "list")

test_sensitive_is_hidden_from_sales if {
	not fields.by_class.sensitive with input as asks(["sales"], "read")
}

test_sensitive_stays_hidden_at_reveal if {
	not fields.by_class.sensitive with input as asks(["sales"], "reveal")
}

test_unknown_role_sees_nothing if {
	fields.by_class == {} with input as asks(["root"], "read")
	fields.by_name == {} with input as asks(["root"], "read")
}

test_unknown_action_shows_nothing if {
	fields.by_class == {} with input as asks(["admin"], "shred")
}

test_auditor_sees_no_personal_value if {
	not fields.by_class.personal with input as asks(["auditor"], "read")
}

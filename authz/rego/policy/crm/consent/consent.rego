# METADATA
# title: Consent
# description: >-
#   For some purposes, such as marketing, the person whose data it is has to agree first. Without the consent on
#   the record, nothing is done to it for that purpose.
# schemas:
#   - input: schema.input
# custom:
#   control: GDPR Art. 6(1)(a)
package crm.consent

import data.crm.facts

# METADATA
# scope: document
# title: Given
# description: The stated purpose takes no consent, or the record has the consent to it.
given if {
	purpose := facts.purpose
	demanding := data.settings.consent_purposes
	is_array(demanding)
	not purpose in demanding
}

given if {
	facts.purpose in data.settings.consent_purposes
	facts.purpose in input.resource.consents
}

/** What cannot be measured here, which is no fault: it does not fit the device. */
export class NotMeasured extends Error {}

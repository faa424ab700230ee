# Registers the tests of the packages for other languages; a language that is not installed is a skip, which `make test`
# prints and .ci/run takes as a failure.

dlattn_add_test(rust bindings tests/bindings/rust.sh $<TARGET_FILE_DIR:dlattn> ${PROJECT_BINARY_DIR}/rust)
dlattn_add_test(julia bindings tests/bindings/julia.sh $<TARGET_FILE:dlattn> ${PROJECT_BINARY_DIR}/julia)
set_tests_properties(rust julia PROPERTIES SKIP_RETURN_CODE 77)

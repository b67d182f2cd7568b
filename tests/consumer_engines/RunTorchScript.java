import ai.djl.Model;
import ai.djl.inference.Predictor;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.translate.NoopTranslator;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/** RunTorchScript WEIGHTS 1,3,64,64 INPUT OUTPUT: runs a module on float32 numbers (little endian, C order), as deepImageJ and QuPath do. */
public class RunTorchScript {
    private static final int RUNS = 3; // the first two are observed and compiled

    public static void main(String[] args) throws Exception {
        Shape shape = new Shape(Arrays.stream(args[1].split(",")).mapToLong(Long::parseLong).toArray());
        float[] input = new float[(int) shape.size()];
        ByteBuffer.wrap(Files.readAllBytes(Path.of(args[2]))).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(input);
        Path weights = Path.of(args[0]);
        try (Model model = Model.newInstance("weights", "PyTorch"); NDManager manager = model.getNDManager().newSubManager()) {
            model.load(weights.getParent(), weights.getFileName().toString());
            try (Predictor<NDList, NDList> predictor = model.newPredictor(new NoopTranslator())) {
                for (int run = 0; run < RUNS; run++) {
                    NDArray output = predictor.predict(new NDList(manager.create(input, shape))).get(0);
                    float[] numbers = output.toFloatArray();
                    ByteBuffer bytes = ByteBuffer.allocate(4 * numbers.length).order(ByteOrder.LITTLE_ENDIAN);
                    bytes.asFloatBuffer().put(numbers);
                    Files.write(Path.of(args[3] + "." + run), bytes.array());
                }
            }
        }
    }
}
